"""Model packages -> models that are ready to run, by name.

catalog.py    which model answers a call
loading.py    package -> Model: which variant, on which provider
cpu.py        opens a variant on the CPU        cuda.py     opens a packed variant on a GPU
building.py   given parts -> Model; what its batches cost
manifest.py   what a manifest says, in the terms of the engine
memory.py     brings memory to its height before serving
model.py      what serves calls under one name  watched.py  ends its runs that hang while it is loaded
query_table.py   sparse queries without a model
"""
