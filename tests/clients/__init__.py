"""Clients that people have, run unchanged against one server: ``python -m tests.clients`` (`make test-clients`).

client.py     what is said of one
table.py      the clients of gRPC               table_http.py   those of HTTP
served.py     the server: a cross-encoder, a bi-encoder, a sparse encoder
snippets.py   what docs/clients.md shows of each client
scripts/      what is run of each client; they import nothing of Pairwire
"""
