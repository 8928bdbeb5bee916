"""Other people's protocols over the same engine calls as pairwire.v1: clients that exist work by changing an address.

A module decodes a request, awaits one call of the engine and encodes its answer. It checks nothing that ``rpc`` or the
engine checks already, and knows no second way to a score.

    roles.py      which model answers a call that names none
    http/         OpenAI, Cohere, Jina, vLLM, TEI and KServe over HTTP
"""
