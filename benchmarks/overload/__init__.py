"""A real server under more load than it can do.

__main__.py   goodput against load
callers.py    what a small caller sees of a flood
partial.py    reranks that take a partial answer: in time, and what their rankings are worth
large.py      the largest requests there may be, several at once: what others see, memory, cancelling
sending.py    requests, client processes, percentiles
"""
