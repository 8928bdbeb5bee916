"""The `pairwire` command: one thin layer over the exporter, the server and the clients.

main.py       subcommands -> their rooms             arguments.py   arguments that several commands share
any_order.py  options and texts in any order
exits.py      errors -> sentences and codes          failures.py    a record's error -> the line of the input
streams.py    stdout closed, full or in ASCII
records.py    lines -> pairs, queries, texts         output.py      tables, JSON lines, progress
npy.py        arrays in files                        in_order.py    many requests under way, answers in order
backend.py    where the work is done: remote.py (a server) or local.py (this process)
score.py   rerank.py   classify.py   embed.py   embed_sparse.py    what a person asks of a model
bulk.py       files in, files out: pairwire.batch
models.py   inspect.py   tune.py   profile.py        what is loaded, what is in a package, how fast it is
api_key.py    makes a key for a server
doctor.py     what this machine can run: machine.py looks, diagnosis.py judges
demo.py       `make demo`: server_process.py starts a server, showcase.py prints
"""
