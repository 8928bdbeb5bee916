from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.export.checkpoint import adapter
from pairwire.export.errors import CheckpointNotFound, CheckpointUnsupported
from pairwire.export.progress import quiet_libraries
from tests import checkpoints


@pytest.fixture
def editable(adapter_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter_directory, tmp_path / "editable"))


def merged(directory: Path, into: Path) -> Path:
    into.mkdir()
    with quiet_libraries():
        return adapter.merge(directory, into)


def test_adapter_is_told_from_a_checkpoint(adapter_directory: Path, cross_encoder_checkpoint: Path) -> None:
    assert adapter.is_adapter(adapter_directory)
    assert not adapter.is_adapter(cross_encoder_checkpoint)


def test_merged_checkpoint_scores_like_base_and_adapter(
    adapter_directory: Path, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(cross_encoder_checkpoint)
    base = AutoModelForSequenceClassification.from_pretrained(cross_encoder_checkpoint)
    rows = tokenizer(
        [a for a, _ in checkpoints.PAIRS], [b for _, b in checkpoints.PAIRS], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        without = torch.sigmoid(base(**rows).logits)[:, 0].numpy()
        adapted = PeftModel.from_pretrained(base, str(adapter_directory)).eval()
        expected = torch.sigmoid(adapted(**rows).logits)[:, 0].numpy()
    with quiet_libraries():
        model = CrossEncoder(str(merged(adapter_directory, tmp_path / "merged")), device="cpu")
        scores = model.predict(list(checkpoints.PAIRS))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.abs(scores - without).max() > 0.05


def test_files_beside_the_adapter_take_precedence(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / "config_sentence_transformers.json", activation_fn="torch.nn.Identity")
    directory = merged(editable, tmp_path / "merged")
    assert (directory / "config_sentence_transformers.json").is_file()
    assert not adapter.is_adapter(directory)


def test_adapter_of_a_bi_encoder_keeps_pooling_and_prompts(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, TaskType, get_peft_model
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    directory = tmp_path / "adapter"
    config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=2, target_modules=["query"], init_lora_weights=False)
    get_peft_model(AutoModel.from_pretrained(bi_encoder_checkpoint), config).save_pretrained(str(directory))
    with quiet_libraries():
        model = SentenceTransformer(str(merged(directory, tmp_path / "merged")), device="cpu")
        base = SentenceTransformer(str(bi_encoder_checkpoint), device="cpu")
        vectors, before = model.encode(list(checkpoints.TEXTS)), base.encode(list(checkpoints.TEXTS))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(vectors - before).max() > 1e-3


def test_labels_are_counted_at_the_last_layer_of_the_classifier(tmp_path: Path) -> None:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    base_directory = checkpoints.save_cross_encoder(tmp_path / "base", architecture="distilbert", labels=3)
    base = AutoModelForSequenceClassification.from_pretrained(base_directory)
    heads = ["pre_classifier", "classifier"]  # the first has as many rows as the model has dimensions
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["q_lin"], modules_to_save=heads)
    get_peft_model(base, config).save_pretrained(str(tmp_path / "adapter"))
    assert AutoConfig.from_pretrained(merged(tmp_path / "adapter", tmp_path / "merged")).num_labels == 3


def test_missing_base_is_named(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path="/nowhere/base")
    with pytest.raises(CheckpointNotFound, match="the adapter's base model is missing: /nowhere/base"):
        merged(editable, tmp_path / "merged")


def test_adapter_without_a_base_is_refused(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path=None)
    with pytest.raises(CheckpointUnsupported, match="base_model_name_or_path is empty"):
        merged(editable, tmp_path / "merged")


def test_adapter_for_another_task_is_refused(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, task_type="CAUSAL_LM")
    with pytest.raises(CheckpointUnsupported, match="task_type 'CAUSAL_LM'"):
        merged(editable, tmp_path / "merged")


def test_adapter_without_a_classifier_is_refused(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(cross_encoder_checkpoint)
    config = LoraConfig(r=2, target_modules=["query"])  # no task type: the classifier is neither trained nor saved
    get_peft_model(base, config).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointUnsupported, match="brings no classifier"):
        merged(tmp_path / "adapter", tmp_path / "merged")


def test_adapter_in_pickle_format_is_refused(editable: Path, tmp_path: Path) -> None:
    (editable / "adapter_model.safetensors").rename(editable / "adapter_model.bin")
    with pytest.raises(CheckpointUnsupported, match="safetensors"):
        merged(editable, tmp_path / "merged")
