"""Exact rewrites of an exported graph, one a file: ``apply(model) -> PassReport`` changes the model in place.

    constant_reshapes.py   shapes that are known are written down instead of computed at every run
    prune_last_layer.py    the last layer is computed at the one token that is read
    fold_bias.py           biases of keys and values leave attention
    sequence_major.py      hidden states are [length, rows, hidden], so that attention transposes less
    absorb_projections.py  attention of one query needs no keys and values of every token
    unpadded_attention.py  long rows without padding go to the fused attention kernel
    skip_layer_norm.py     a residual sum and its normalisation are one operator (GPU)
    bias_gelu.py           a bias and the Gelu after it are one operator (GPU)
    packed.py, pooling.py  rows stand one after the other, without padding (GPU)
    embed_layer_norm.py    the sum of embeddings and its normalisation are one operator (GPU)
    half.py                float16 up to the last normalisation (GPU)
    unpacked.py            packed attention in operators that a CPU has, to check it
    probe.py               tensors from inside a graph, by running it
    view.py                what a pass needs to know about a graph

A pass that finds nothing it understands changes nothing and says why in its report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import ModelProto

from pairwire.v1 import manifest_pb2

from . import constant_reshapes, prune_last_layer

Pass = Callable[[ModelProto], manifest_pb2.PassReport]

ALWAYS: Sequence[Pass] = (constant_reshapes.apply, prune_last_layer.apply)
"""The passes that can only save work, in order. The others are choices of `recipes`."""
