"""Choosing by measurement: contenders run side by side, and the fastest that still gives the same answers wins.

    measuring.py    what a token costs each contender, in one thread's CPU time
    choosing.py     from a start, one factor after the other; keeps what is faster by more than the noise
    candidates.py   what can be chosen for a finished package: optimizers, tokens of a batch, the variant that serves
    probe.py        built-in texts, on which contenders must agree
    tune.py         `pairwire tune`: all of that for one package, and the manifest that it makes

`pairwire export` chooses how graphs are made by the same means.
"""
