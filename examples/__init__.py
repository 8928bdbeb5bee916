"""Four small programs to copy from, each one file; README.md lists them with what they print.

retrieve_and_rerank.py   search: a bi-encoder finds candidates, a cross-encoder ranks them
near_duplicates.py       sentences that say the same
entailment.py            does the first text imply the second?
cluster.py               clusters of like sentences
fleet/                   on Ray, Spark and DuckDB
_serving.py              how they reach a server
_texts.py                where their texts come from
"""
