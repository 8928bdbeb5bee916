"""Measurements: each module prints what it ran on and one table, and writes flat JSON rows with ``--json``.

peers.py      the engine in process against sentence-transformers' backends, same pairs, alternating
load.py       closed-loop and open-loop load on a running server over gRPC
gpu/          a packed variant on an NVIDIA GPU: parity, latency of each shape, throughput against torch
plan.py       batching rules of several servers in virtual time, and the planner's own time (batching/)
datasets.py   real pairs from public data sets in their original files, and built-in ones
agreement.py  how far scores are from a reference's
checkout.py   makes the project importable where it cannot be installed
report.py     machine, length histogram, table, JSON
"""
