"""Programs for many machines, which run on one too: on Ray, Spark and DuckDB.

ray_search.py   a corpus is embedded and searched, the best texts are reranked: Ray Data, several actors
ray_serve.py    Pairwire behind Ray Serve's gRPC proxy, asked by the shipped client
spark_score.py  pairs of a Parquet file are scored: Spark's mapInArrow
duckdb_score.py the same in SQL: a function of DuckDB
"""
