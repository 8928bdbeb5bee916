"""A program for the environment of `make test-deploy`: checks custom resources against models made from their schemas.

``python crd_models.py FILE...``. The models skip fields that they do not know; so what was read is written again, and
must have every key that was there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

MODELS = {
    "networking.istio.io/v1": "cloudcoil.models.istio.networking.v1",
    "security.istio.io/v1": "cloudcoil.models.istio.security.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


def main() -> None:
    """Prints what was checked; exits with 1 where something is not as the schema has it."""
    wrong = []
    for file in sys.argv[1:]:
        for document in yaml.safe_load_all(Path(file).read_text(encoding="utf-8")):
            module = MODELS.get(document["apiVersion"])
            if module is None:
                continue
            model = getattr(importlib.import_module(module), document["kind"])
            read = model.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")
            lost = set(_keys(document)) - set(_keys(read))
            wrong += [f"{document['kind']} has no {'.'.join(map(str, path))}" for path in sorted(lost, key=str)]
            print(document["kind"])
    sys.exit("\n".join(wrong) or 0)


def _keys(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _keys(inner, (*path, key))


if __name__ == "__main__":
    main()
