"""Exact rewrites of an exported graph, one a file: ``apply(model) -> PassReport`` changes the model in place.

    constant_reshapes.py   shapes that are known are written down instead of computed at every run
    prune_last_layer.py    the last layer is computed at the one token that is read
    sequence_major.py      hidden states are [length, rows, hidden], so that attention transposes less
    unpadded_attention.py  long rows without padding go to the fused attention kernel
    view.py                what a pass needs to know about a graph

A pass that finds nothing it understands changes nothing and says why in its report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import ModelProto

from pairwire.v1 import manifest_pb2

from . import constant_reshapes, prune_last_layer, sequence_major

Pass = Callable[[ModelProto], manifest_pb2.PassReport]

ALL: Sequence[Pass] = (constant_reshapes.apply, prune_last_layer.apply, sequence_major.apply)
"""Every pass over the float32 graph, in order; `unpadded_attention` runs later, on each finished variant."""
