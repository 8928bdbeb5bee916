"""The shipped client against Ray Serve: ``python -m tests.cluster.served PACKAGE --port N --http-port N``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pairwire.client import Client, ClientError, InvalidInput, ModelNotFound


def _refused(client: Client, pairs: list[tuple[str, str]], **options: Any) -> ClientError:
    try:
        client.score(pairs, **options)
    except ClientError as error:
        return error
    raise AssertionError("it was scored")


def main() -> None:
    """Deploys, asks everything, and looks at answers and errors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--http-port", type=int)
    args = parser.parse_args()

    import ray
    from ray import serve

    from pairwire.batch.ray import deployment, grpc_options

    ray.init(num_cpus=4, include_dashboard=False)
    serve.start(grpc_options=grpc_options(args.port), http_options={"port": args.http_port})
    serve.run(deployment(args.package, engine={"warmup_s": 0.01}))
    with Client(f"localhost:{args.port}") as client:
        client.wait_until_ready()
        assert [model.name for model in client.models()] == ["scorer"]
        assert client.model("scorer").manifest.name == "scorer"
        pairs = [("tide", f"moon {'sea ' * (number % 7)}") for number in range(700)]
        scores = client.score(pairs).scores
        assert scores.shape == (700,)
        ranked = client.rerank(*pairs[0][:1], [second for _, second in pairs[:9]])
        assert [found.score for found in ranked] == sorted((float(score) for score in scores[:9]), reverse=True)
        too_long = _refused(client, [("a", "b"), ("a", "word " * 3000)], truncation="error")
        assert isinstance(too_long, InvalidInput)
        assert "pairs[1].second" in str(too_long)
        unknown = _refused(client, [("a", "b")], model="other")
        assert isinstance(unknown, ModelNotFound)
        assert "'other'" in str(unknown)
    serve.shutdown()
    ray.shutdown()
    print("everything answered")


if __name__ == "__main__":
    main()
