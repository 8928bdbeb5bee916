"""sentence-transformers' own backends, each built from one checkpoint directory the way its documentation tells."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .datasets import Pair


class System(Protocol):
    """Something that scores pairs."""

    def predict(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Scores float32 [pairs] after the activation, in input order."""
        ...


class CrossEncoderSystem:
    """``sentence_transformers.CrossEncoder`` on one of its backends."""

    def __init__(self, checkpoint: Path, batch_size: int, backend: str = "torch", file_name: str | None = None) -> None:
        from sentence_transformers import CrossEncoder

        model_kwargs = {"file_name": file_name} if file_name else {}
        self.model = CrossEncoder(str(checkpoint), backend=backend, device="cpu", model_kwargs=model_kwargs)
        self._batch_size = batch_size

    def predict(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Scores float32 [pairs]."""
        scores = self.model.predict(list(pairs), batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32)


def build(name: str, checkpoint: Path, work: Path, batch_size: int, calibration: Sequence[Pair]) -> System:
    """The rival of that name (a key of ``RIVALS``); what it exports goes below ``work``.

    ``calibration`` are the pairs that openvino-int8 takes its activation ranges from.

    Raises:
        ImportError: what the backend needs is not installed.
    """
    return RIVALS[name](checkpoint, work, batch_size, calibration)


def _torch(checkpoint: Path, work: Path, batch_size: int, calibration: Sequence[Pair]) -> System:
    return CrossEncoderSystem(checkpoint, batch_size)


def _onnx(checkpoint: Path, work: Path, batch_size: int, calibration: Sequence[Pair]) -> System:
    return CrossEncoderSystem(_exported(checkpoint, work / "onnx", "onnx"), batch_size, "onnx", "onnx/model.onnx")


def _onnx_int8(checkpoint: Path, work: Path, batch_size: int, calibration: Sequence[Pair]) -> System:
    from sentence_transformers import export_dynamic_quantized_onnx_model

    directory = _exported(checkpoint, work / "onnx", "onnx")
    file_name = "onnx/model_qint8_avx512_vnni.onnx"
    if not (directory / file_name).is_file():
        fp32 = CrossEncoderSystem(directory, batch_size, "onnx", "onnx/model.onnx")
        export_dynamic_quantized_onnx_model(fp32.model, "avx512_vnni", str(directory))
    return CrossEncoderSystem(directory, batch_size, "onnx", file_name)


def _openvino(checkpoint: Path, work: Path, batch_size: int, calibration: Sequence[Pair]) -> System:
    _need("openvino", "optimum.intel")
    directory = _exported(checkpoint, work / "openvino", "openvino")
    return CrossEncoderSystem(directory, batch_size, "openvino", "openvino/openvino_model.xml")


def _openvino_int8(checkpoint: Path, work: Path, batch_size: int, calibration: Sequence[Pair]) -> System:
    _need("openvino", "optimum.intel", "nncf", "datasets")
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import export_static_quantized_openvino_model

    directory = _exported(checkpoint, work / "openvino", "openvino")
    file_name = "openvino/openvino_model_qint8_quantized.xml"
    if not (directory / file_name).is_file():
        texts = work / "calibration"
        texts.mkdir(exist_ok=True)
        rows = [json.dumps({"sentence": text}) for pair in calibration for text in pair if text]
        (texts / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        fp32 = CrossEncoderSystem(directory, batch_size, "openvino", "openvino/openvino_model.xml")
        export_static_quantized_openvino_model(
            fp32.model,
            OVQuantizationConfig(num_samples=min(300, len(rows))),
            str(directory),
            dataset_name=str(texts),
            dataset_config_name="default",
            dataset_split="train",
            column_name="sentence",
        )
    return CrossEncoderSystem(directory, batch_size, "openvino", file_name)


RIVALS: dict[str, Callable[[Path, Path, int, Sequence[Pair]], System]] = {
    "torch-fp32": _torch,
    "onnx-fp32": _onnx,
    "onnx-int8": _onnx_int8,
    "openvino-fp32": _openvino,
    "openvino-int8": _openvino_int8,
}


def _exported(checkpoint: Path, directory: Path, backend: str) -> Path:
    """The checkpoint with the backend's own export saved next to it, made once."""
    if not (directory / backend).is_dir():
        from sentence_transformers import CrossEncoder

        CrossEncoder(str(checkpoint), backend=backend, device="cpu").save_pretrained(str(directory))
    return directory


def _need(*modules: str) -> None:
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ImportError(f"{module} is not installed (pip install 'optimum-intel[openvino]' nncf datasets)")
