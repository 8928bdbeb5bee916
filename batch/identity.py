"""What tells a model from every other: results of one package must not be mixed with those of another."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from google.protobuf import json_format

if TYPE_CHECKING:
    from pairwire.v1.manifest_pb2 import ModelManifest


def package_identity(manifest: ModelManifest, variant: str) -> str:
    """Lower-case hexadecimal sha256 of a package's manifest, which has those of its files, and the variant's name.

    It is the same for a package here and for a server that has loaded it.
    """
    described = json_format.MessageToDict(manifest)
    text = json.dumps([variant, described], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
