"""Rows of docs/models.md whose checkpoints bring code of their own, or come from another release of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests import checkpoints, custom

from .case import Case, Refusal

_NAMES = ("constant_reshapes", "prune_last_layer", "sequence_major", "absorb_projections", "unpadded_attention")
_OTHER_FORM = "attention around .* has another form than"
_BY_DISTANCE = "attention .* adds more than a mask of padding, as a bias by distance would be"
_CROSS, _MEAN = "cross-encoder, own code", "bi-encoder, mean, own code"


def _cpu(*counts: int, products: int) -> dict[str, int]:
    """Places of the passes in the order of ``_NAMES``, and of quantize_matmul."""
    return dict(zip(_NAMES, counts, strict=True)) | {"quantize_matmul": products}


def _glm(directory: Path) -> None:
    """A decoder of a type that no rule here names; torch's first exporter has no operator for its rotary positions."""
    checkpoints.save_decoder_classifier(directory, architecture="glm")


def _saved_by_5(directory: Path, **rope: object) -> None:
    """As transformers 5 writes what lies beside the weights."""
    checkpoints.save_cross_encoder(directory, architecture="bert")
    checkpoints.edit_json(directory / "config.json", transformers_version="5.24.0", tie_word_embeddings=True, **rope)
    tokenizer: dict[str, Any] = {"added_tokens_decoder": None, "clean_up_tokenization_spaces": None}
    checkpoints.edit_json(directory / "tokenizer_config.json", backend="tokenizers", is_local=False, **tokenizer)
    (directory / "special_tokens_map.json").unlink(missing_ok=True)


def _decoder_of_5(directory: Path) -> None:
    checkpoints.save_decoder_classifier(directory)
    rope = {"rope_theta": 1000000.0, "rope_type": "default"}
    checkpoints.edit_json(
        directory / "config.json",
        transformers_version="5.24.0",
        rope_theta=None,
        rope_scaling=None,
        rope_parameters=rope,
    )


def _saved_by_4_40(directory: Path) -> None:
    """As transformers 4.40 and sentence-transformers 2.7 wrote a bi-encoder."""
    checkpoints.save_bi_encoder(directory)
    for entry in (directory / "sentence_bert_config.json", directory / "1_Pooling" / "config.json"):
        entry.unlink()
    checkpoints.edit_json(directory / "sentence_bert_config.json", max_seq_length=128, do_lower_case=False)
    modes = dict.fromkeys(("cls_token", "max_tokens", "mean_sqrt_len_tokens"), False) | {"mean_tokens": True}
    checkpoints.edit_json(
        directory / "1_Pooling" / "config.json",
        word_embedding_dimension=32,
        **{f"pooling_mode_{name}": value for name, value in modes.items()},
    )
    versions = {"sentence_transformers": "2.7.0", "transformers": "4.40.0", "pytorch": "2.2.2"}
    settings = directory / "config_sentence_transformers.json"
    settings.unlink()
    checkpoints.edit_json(settings, __version__=versions)
    modules = directory / "modules.json"
    old = "sentence_transformers.models"
    kinds = ("Transformer", "Pooling", "Normalize")
    listed = [
        {"idx": at, "name": str(at), "path": path, "type": f"{old}.{kind}"}
        for at, (kind, path) in enumerate(zip(kinds, ("", "1_Pooling", "2_Normalize"), strict=True))
    ]
    import json

    modules.write_text(json.dumps(listed))
    checkpoints.edit_json(directory / "config.json", transformers_version="4.40.0", torch_dtype="float32", dtype=None)


_bi, _cross = partial(partial, custom.save_bi_encoder), partial(partial, custom.save_cross_encoder)
_BERT: Mapping[str, int] = _cpu(6, 0, 2, 0, 2, products=12)
_HALF = {"skip_layer_norm": 4, "bias_gelu": 2, "packed": 2, "embed_layer_norm": 1}

OWN_CODE: tuple[Case, ...] = (
    Case(
        model="GTE new (gte-multilingual-base, gte-large-en-v1.5, snowflake-arctic-embed-m-v2.0, stella_en_400M_v5)",
        task="bi-encoder, cls, rows without padding, own code",
        make=_bi(shape="new", pooling="cls", unpad_inputs=True),
        passes=_cpu(6, 1, 0, 0, 0, products=8),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="GTE new (gte-multilingual-reranker-base)",
        task="cross-encoder, scaled rotary positions, own code",
        make=_cross(shape="new", rope_scaling={"type": "ntk", "factor": 2.0}),
        passes=_cpu(6, 1, 0, 0, 0, products=8),
        half=_OTHER_FORM,
    ),
    Case(
        model="NomicBERT (nomic-embed-text-v1.5, CodeRankEmbed)",
        task=_MEAN,
        make=_bi(shape="nomic"),
        passes=_cpu(0, 0, 0, 0, 0, products=10),
        half=_OTHER_FORM,
    ),
    Case(
        model="NomicBERT with experts (nomic-embed-text-v2-moe)",
        task=_MEAN,
        make=_bi(shape="nomic", num_experts=4, moe_every_n_layers=2),
        passes=_cpu(13, 0, 0, 0, 0, products=16),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="JinaBERT (jina-embeddings-v2-base-en)",
        task=_MEAN,
        make=_bi(shape="alibi", alibi_starting_size=16),
        passes=_cpu(0, 0, 2, 0, 0, products=12),
        half=_BY_DISTANCE,
        newest=True,
    ),
    Case(
        model="JinaBERT (jina-reranker-v1-turbo-en)",
        task=_CROSS,
        make=_cross(shape="alibi"),
        passes=_cpu(0, 1, 2, 1, 0, products=10),
        half=_BY_DISTANCE,
    ),
    Case(
        model="Llama, bidirectional (llama-nemotron-embed-1b-v2)",
        task=_MEAN,
        make=_bi(shape="bidirectional"),
        passes=_cpu(12, 0, 0, 0, 0, products=14),
        half=_OTHER_FORM,
    ),
    Case(
        model="Llama, bidirectional (llama-nemotron-rerank-1b-v2)",
        task=_CROSS,
        make=_cross(shape="bidirectional"),
        passes=_cpu(12, 0, 0, 0, 0, products=15),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="XLM-R with flash attention (jina-reranker-v2-base-multilingual)",
        task=_CROSS,
        make=_cross(shape="flash"),
        passes=_cpu(4, 1, 0, 0, 0, products=8),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="GLM (fine-tuned from glm-4-9b; a decoder of any other type)",
        task="cross-encoder, classifier",
        make=_glm,
        passes=_cpu(16, 0, 0, 0, 0, products=12),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="BERT, saved by transformers 4.40 (all-MiniLM-L6-v2)",
        task="bi-encoder, mean",
        make=_saved_by_4_40,
        passes=_BERT,
        half=_HALF,
        newest=True,
    ),
    Case(
        model="BERT, saved by transformers 5 (any of ms-marco-MiniLM saved again)",
        task="cross-encoder",
        make=_saved_by_5,
        passes=_cpu(6, 1, 2, 1, 1, products=10),
        half=_HALF,
    ),
)

OWN_REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        what="code of its own, without --trust-remote-code (any row with own code)",
        make=_cross(shape="flash"),
        reason="--trust-remote-code runs it; without the flag nothing of a checkpoint is",
    ),
    Refusal(
        what="code that runs row by row, in a Python loop over their lengths (own code)",
        make=_bi(shape="looped"),
        reason="cannot be traced: torch.jit.trace",
        trusted=True,
    ),
    Refusal(
        what="rotary positions that transformers 5 has saved (Qwen3-Embedding saved again), with transformers 4",
        make=_decoder_of_5,
        reason="rope_parameters (rope_theta 1000000.0) is read by transformers 5 alone",
        newest=False,
    ),
)
