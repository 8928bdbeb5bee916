"""Batches on their way through the runtime, and the calls that wait for them.

worker.py       the threads that run batches, and the one lock
runner.py       a run, and the search for the inputs that make it fail
inflight.py     which rows wait for which, so that equal rows are computed once    sharing.py   what it keeps of them
written.py      the one place that writes result rows
ticket.py       where a call's results go, and who is woken when they are there
score_cache.py  results of earlier calls
"""
