"""The `pairwire` command: one thin layer over the exporter, the server and the clients.

main.py      subcommands -> their rooms      arguments.py  arguments that several commands share
exits.py     errors -> sentences and codes   failures.py   a record's error -> the line of the input
records.py   lines -> pairs, queries, texts  output.py     tables, JSON lines, progress      npy.py  arrays in files
backend.py   a server or this process: remote.py, local.py      in_order.py  many requests under way, answers in order
score.py  rerank.py  embed.py  models.py  inspect.py  profile.py   one subcommand each
demo.py      `make demo`                     showcase.py   what it prints
"""
