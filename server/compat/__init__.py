"""Other people's protocols over the same engine calls as pairwire.v1: clients that exist work by changing an address.

A module decodes a request, awaits one call of the engine and encodes its answer. It checks nothing that ``rpc`` or the
engine checks already, and knows no second way to a score.

roles.py      which model answers a call that names none
fields.py     errors in the words of a protocol

KServe v2, gRPC's form of it in the first two; the others know neither gRPC nor JSON:
kserve.py               the service                kserve_wire.py         its messages
kserve_inference.py     what inputs mean           kserve_tensors.py      tensors <-> arrays and texts
kserve_parameters.py    parameters -> options      kserve_statistics.py   what each model has done
kserve_models.py        metadata, configuration, statistics, index

text-embeddings-inference:
tei.py        its six services                     tei_codec.py           its messages, and its defaults
tei_cost.py   what it tells of a request's cost

http/         all of them that are JSON: OpenAI, Cohere, Jina, vLLM, TEI, KServe
"""
