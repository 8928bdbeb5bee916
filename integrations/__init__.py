"""Pairwire in frameworks for retrieval: each module is an optional import over `pairwire.client`.

    langchain.py   a document compressor and embeddings        needs langchain-core
    llamaindex.py  a node postprocessor and an embedding       needs llama-index-core
    haystack.py    a ranker, embedders of texts and documents  needs haystack-ai
    serving.py     what they share: clients that are made when they are needed, prompts of queries and documents

Each has a blocking and an asyncio way, retries as the client does, and raises the client's errors
(`pairwire.client.ClientError`).
"""
