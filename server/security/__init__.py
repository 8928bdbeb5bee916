"""Who may call, and how what is sent is encrypted. Nothing here knows a model.

roles.py         what a caller may do, and what each call needs
keys.py          API keys: how one is made, and the file of their hashes
tokens.py        JSON Web Tokens of an identity provider
access.py        headers of a call -> who calls, or why not
certificates.py  TLS for gRPC, HTTP and metrics, from files that may change at any time
reloading.py     notices files that change
bounded.py       reads files up to a bound
guard.py         all of these for one process
"""
