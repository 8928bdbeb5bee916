"""Does a variant score like the checkpoint?

compare.py       every variant against sentence-transformers
without_gpu.py   a GPU's graph by the operators of a CPU
report.py        parity.json and PARITY.md
"""
