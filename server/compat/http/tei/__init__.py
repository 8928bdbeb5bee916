"""text-embeddings-inference over HTTP, one model a role.

types.py     what it takes and gives
common.py    its errors, its way to say how texts are read, its headers
vectors.py   /embed, /embed_sparse, /similarity
labels.py    /predict, and /rerank by way of ../rerank.py
zero_shot.py /zero-shot, and candidate labels at the root
tokens.py    /tokenize, /decode
info.py      /info
root.py      / and what cloud platforms call: told apart by the fields of a request
"""
