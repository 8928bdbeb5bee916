"""A packed variant on an NVIDIA GPU, against its rivals there: ``python -m benchmarks.gpu --help``.

__main__.py   runs all parts, prints their tables, writes their rows
systems.py    what scores pairs: ours, sentence-transformers on torch, the same graph with dynamic shapes
shapes.py     every shape, replayed and by operators
parity.py     scores against the checkpoint in float32
device.py     what the device can do
"""
