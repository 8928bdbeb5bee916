"""Does ONNX Runtime's CUDA provider really work? A session over one node tells, and nothing else does."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np

from .descriptors import kept

PROVIDER = "CUDAExecutionProvider"

IDENTITY_GRAPH = base64.b64decode(
    "CAg6PgoQCgF4EgF5IghJZGVudGl0eRIIaWRlbnRpdHlaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAR"
)
"""A model with the one node ``y = Identity(x)``, float32 [1], made once by onnx.helper, which servers do not install:

make_model(make_graph([make_node("Identity", ["x"], ["y"])], "identity", [make_tensor_value_info("x", FLOAT, [1])],
[make_tensor_value_info("y", FLOAT, [1])]), ir_version=8, opset_imports=[make_opsetid("", 17)]).SerializeToString()
"""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REASON = re.compile(r"\[E:onnxruntime.*?\] (?:.*(?:FAIL|EP_FAIL|ENGINE_ERROR|RUNTIME_EXCEPTION) : )?(.*)")


def cuda_fault(ort: Any, provider: str = PROVIDER) -> str:
    """Why the CUDA provider of this onnxruntime module does not work; empty if a tensor went through the GPU.

    What ONNX Runtime writes to the standard error of the process meanwhile becomes part of the reason.
    """
    try:
        with kept(2) as log:
            # Without the fallback of its Python layer, which would print to stdout and try the CPU.
            session = ort.InferenceSession(IDENTITY_GRAPH, providers=[provider], enable_fallback=0)
            chosen = session.get_providers()[0]
            (answer,) = session.run(None, {"x": np.array([1.5], np.float32)})
    except Exception as error:  # onnxruntime raises types of its own and bare RuntimeErrors
        return str(error) or type(error).__name__
    if chosen != provider:
        return _first_error("".join(log)) or f"ONNX Runtime took {chosen} in its place"
    return "" if answer.tolist() == [1.5] else f"it copied 1.5 to the GPU and got {answer.tolist()} back"


def _first_error(log: str) -> str:
    """What the first error line of ONNX Runtime's log says, without time, place and colours."""
    found = _REASON.search(_COLOURS.sub("", log))
    return found[1].strip() if found else ""
