"""Does a variant score like the checkpoint?

witness.py       what the reference gives for a few texts, and whether the exported graph gives the same
compare.py       every variant against sentence-transformers
without_gpu.py   a GPU's graph by the operators of a CPU
report.py        parity.json and PARITY.md
"""
