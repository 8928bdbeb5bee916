"""Pairwire on Ray Serve: ``python -m examples.fleet.ray_serve --package models/demo [--port 50051] [--replicas 4]``.

Ray's gRPC proxy speaks ``pairwire.v1``: the client below is the one that talks to ``pairwire serve``. With
``--address`` it is deployed on a cluster. Without ``--once`` it serves until Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from pairwire.client import Client


def main() -> int:
    """Deploys, asks once, and serves on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, nargs="+")
    parser.add_argument("--address", help="of a cluster; without it, Ray is started here")
    parser.add_argument("--port", type=int, default=50051)
    parser.add_argument("--http-port", type=int, default=8000, help="that Ray listens on as well")
    parser.add_argument("--replicas", type=int, default=2, help="at most")
    parser.add_argument("--once", action="store_true", help="end after the first answer")
    args = parser.parse_args()

    import ray
    from ray import serve

    from pairwire.batch.ray import deployment, grpc_options

    ray.init(address=args.address, include_dashboard=False)
    serve.start(grpc_options=grpc_options(args.port), http_options={"port": args.http_port})
    packages = [package.resolve() for package in args.package]
    serve.run(deployment(*packages, max_replicas=args.replicas))
    with Client(f"localhost:{args.port}") as client:
        client.wait_until_ready()
        for found in client.rerank("What causes ocean tides?", ["A recipe for bread.", "The pull of the moon."]):
            print(f"{found.index}\t{found.score:.4f}\t{found.document}", flush=True)
    if not args.once:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
