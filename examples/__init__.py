"""Four small programs to copy from, each one file; README.md lists them with what they print.

`_serving` is how they reach a server, `_texts` is where their texts come from.
"""
