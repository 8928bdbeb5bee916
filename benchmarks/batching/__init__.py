"""Batching rules compared in virtual time; `python -m benchmarks.plan` is the command.

tables.py      what batches cost: recorded, modelled or measured now
lengths.py     token lengths of real and synthetic pairs
workload.py    requests: how large, how long, when
rules.py       the rivals' rules, and the server's own scheduler behind the same protocol
simulation.py  the event loop: arrivals, workers, and which row ran when
figures.py     throughput, latency, padding, unfairness of a run
planning.py    the planner's own time against the compute that it plans
overload.py    more work than can be done: who answers in time          overload_report.py   the same as rows
"""
