"""Messages of other people's protocols, in a descriptor pool of their own.

pool.py        that pool, and why
kserve_pb2.py  KServe v2 (package inference)
tei_pb2.py     text-embeddings-inference (package tei.v1)
"""
