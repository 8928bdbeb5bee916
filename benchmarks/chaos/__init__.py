"""A server under mixed load while it is killed, hung, drained, flooded and left; then the books are checked.

faults.py    graphs that hang, raise or give NaN on a token
client.py    one process of clients, and what became of each of its requests
server.py    the server, and what is done to it
books.py     what must be true afterwards
__main__.py  all of it
"""
