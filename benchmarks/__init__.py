"""Measurements: each module prints what it ran on and one table, and writes flat JSON rows with ``--json``.

peers.py        the engine in process against sentence-transformers' backends, same pairs, alternating
quality.py      ranking quality of each precision on judged data    first_stage.py  retrieve, then rerank
load.py         closed-loop and open-loop load on a running server over gRPC
mixed.py        small and large calls at once, at a share of capacity     soak.py   minutes of load, memory watched
chaos/          a server killed, hung, flooded and left under load; then the books are checked
sizing.py       how many servers a load takes, and how much memory each
harm.py         stalled uploads, answers that nobody reads, drains: memory, and what is lost
overload/       more load than a running server can do: goodput, partial answers, floods, the largest requests
http_stacks.py  what HTTP servers and JSON libraries cost a request    http_channel.py   HTTP calls of a load test
plan.py         batching rules of several servers in virtual time, and the planner's own time, overload (batching/)
bulk.py         bulk runs: rate next to the engine, kills, memory
export.py       seconds and memory of an export, step by step
text.py         tokenising by itself            threads.py   workers and threads of a run
arena.py        memory of ONNX Runtime's arena  gpu/         a packed variant on an NVIDIA GPU

datasets.py     real pairs from public data sets in their original files, and built-in ones
judged.py       data sets with relevance        checkpoints.py  a checkpoint as a directory and as a package
rivals.py       sentence-transformers' backends  scorers.py      who scores pairs: ours, or a rival
serving.py      a server for a benchmark        load_client.py  one process of a load
protocols.py    the same work in each protocol of the server
shapes.py       checkpoints with random weights full_size.py    the same as large as known models
pieces.py       their tokenizers                shape_table.py  a table of them, for peers.py
agreement.py    how far scores are from a reference's
checkout.py     makes the project importable where it cannot be installed
report.py       machine, length histogram, table, JSON
"""
