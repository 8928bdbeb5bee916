"""Which rows run next, together with which others. Pure logic: no threads, no tensors, the time is an argument.

scheduler.py   the one door into and out of the pool: order and deadlines
admission.py   who is let in, by an honest estimate          pace.py   what makes it honest
estimates.py   what work would take, by the cost tables
callers.py     fair shares: whose turn it is                 ledger.py   work by when it is due
batch.py       a batch and what is reported of it
pool.py        waiting rows, sorted by length
planner.py     which waiting rows make the next batch
cover.py       the cheapest way to cut sorted rows into batches
packing.py     the same decisions where rows are not padded
buckets.py     the ladder of padded lengths
cost.py        seconds of each bucket           cost_cache.py   the same, kept on disk
priority.py    who may overtake whom            agenda.py       things in the order of their times
"""
