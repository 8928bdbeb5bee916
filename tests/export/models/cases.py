"""What docs/models.md tells of: small checkpoints, what must come of them, and what is refused.

A row more is one more `Case` in ``CASES``, or one more `Refusal` in ``REFUSALS``; then
``python -m tests.export.models`` writes the document again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pairwire.export.config import AskedScore
from pairwire.server.engine.outputs.heads import Activation
from tests import checkpoints, decoders, embedders, tables

from .case import Case, Make, Refusal
from .own_code import OWN_CODE, OWN_REFUSALS


def _cpu(reshapes: int, products: int, *, pruned: int = 1, turned: int = 2, masked: int = 2) -> dict[str, int]:
    """``masked`` of the ``turned`` attentions add a mask of padding and nothing else.

    A pruned layer's keys and values are no products of all tokens any more, and its attention is not for the fused
    kernel.
    """
    absorbed = pruned if turned else 0
    return {
        "constant_reshapes": reshapes,
        "prune_last_layer": pruned,
        "sequence_major": turned,
        "absorb_projections": absorbed,
        "unpadded_attention": max(0, masked - absorbed),
        "quantize_matmul": products - 2 * absorbed,
    }


def _gpu(*, norms: int = 4, gelus: int = 2, embedded: int = 1) -> dict[str, int]:
    return {"skip_layer_norm": norms, "bias_gelu": gelus, "packed": 2, "embed_layer_norm": embedded}


def _cross(architecture: str, **options: object) -> Make:
    return partial(checkpoints.save_cross_encoder, architecture=architecture, **options)  # type: ignore[arg-type]


def _bi(architecture: str, **options: object) -> Make:
    return partial(checkpoints.save_bi_encoder, architecture=architecture, **options)  # type: ignore[arg-type]


_CROSS, _MEAN = "cross-encoder", "bi-encoder, mean"
_BY_DISTANCE = "attention .* adds more than a mask of padding, as a bias by distance would be"
_OTHER_FORM = "attention around .* has another form than"
_POOLING = "its result is not one vector a row, of the first token or the mean of all"
_NO_ATTENTION = {"turned": 0, "masked": 0}


_POOLED = {
    ("cls",): "bge-small-en-v1.5",
    ("max",): "fine-tuned with max pooling",
    ("mean_sqrt_len_tokens",): "fine-tuned with mean_sqrt_len_tokens",
    ("weightedmean",): "SGPT's pooling",
    ("lasttoken",): "fine-tuned with lasttoken",
    ("cls", "mean"): "fine-tuned with two poolings",
}
_TABLE = {"quantize_embedding": 1}
_NO_GPU = "looking up rows of a table is no work for a GPU"


def _pooled(*modes: str, half: Mapping[str, int] | str, pruned: int = 0) -> Case:
    """BERT with another pooling than the mean; in fp32, as pooling has no products to quantise."""
    passes = {name: count for name, count in _cpu(6, 12, pruned=pruned).items() if name != "quantize_matmul"}
    make = _bi("bert", pooling=modes[0] if len(modes) == 1 else modes)
    task = f"bi-encoder, {' and '.join(modes)}"
    return Case(model=f"BERT ({_POOLED[modes]})", task=task, make=make, passes=passes, half=half, precisions=("fp32",))


CASES: tuple[Case, ...] = (
    Case(
        model="BERT (MiniLM, TinyBERT)", task=_CROSS, newest=True, make=_cross("bert"), passes=_cpu(6, 12), half=_gpu()
    ),
    Case(
        model="RoBERTa (stsb-roberta-base)",
        task=_CROSS,
        make=_cross("roberta"),
        passes=_cpu(6, 12),
        half=_gpu(norms=5, embedded=0),
    ),
    Case(
        model="XLM-R (bge-reranker)",
        task=_CROSS,
        make=_cross("xlm-roberta"),
        passes=_cpu(6, 12),
        half=_gpu(norms=5, embedded=0),
        newest=True,
    ),
    Case(
        model="DistilBERT (msmarco-distilbert)",
        task=_CROSS,
        make=_cross("distilbert"),
        passes=_cpu(10, 12, masked=0),
        half=_gpu(),
    ),
    Case(model="ELECTRA (ms-marco-electra-base)", task=_CROSS, make=_cross("electra"), passes=_cpu(6, 13), half=_gpu()),
    Case(
        model="MPNet (fine-tuned from mpnet-base)",
        task=_CROSS,
        newest=True,
        make=_cross("mpnet"),
        passes=_cpu(6, 12, masked=0),
        half=_BY_DISTANCE,
    ),
    Case(
        model="ALBERT (fine-tuned from albert-base-v2)",
        task=_CROSS,
        make=_cross("albert"),
        passes=_cpu(8, 13),
        half=_gpu(gelus=0),
    ),
    Case(
        model="CamemBERT (crossencoder-camembert-base)",
        task=_CROSS,
        make=_cross("camembert"),
        passes=_cpu(6, 12),
        half=_gpu(norms=5, embedded=0),
    ),
    Case(
        model="DeBERTa-v2 (fine-tuned from deberta-v2-xlarge)",
        task=_CROSS,
        make=_cross("deberta-v2"),
        passes=_cpu(0, 12, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="DeBERTa-v3 (mxbai-rerank-v1)",
        task=_CROSS,
        make=_cross("deberta-v3"),
        passes=_cpu(0, 12, **_NO_ATTENTION),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="ModernBERT (gte-reranker-modernbert)",
        task=_CROSS,
        make=_cross("modernbert"),
        passes=_cpu(3, 9, **_NO_ATTENTION),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="ModernBERT (fine-tuned from ModernBERT-base)",
        task="cross-encoder, classifier_pooling mean",
        make=_cross("modernbert-mean"),
        passes=_cpu(3, 9, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="BERT (NLI, fine-tuned from bert-base)",
        task="cross-encoder, 3 labels, softmax",
        make=partial(checkpoints.save_cross_encoder, labels=3, activation="torch.nn.modules.activation.Softmax"),
        passes=_cpu(6, 12),
        half=_gpu(),
    ),
    Case(
        model="BERT (multi-label, fine-tuned from bert-base)",
        task="cross-encoder, 4 labels, sigmoid of each",
        make=partial(checkpoints.save_cross_encoder, labels=4, problem_type="multi_label_classification"),
        passes=_cpu(6, 12),
        half=_gpu(),
    ),
    Case(model="BERT (MiniLM)", newest=True, task=_MEAN, make=_bi("bert"), passes=_cpu(6, 12, pruned=0), half=_gpu()),
    Case(
        model="MPNet (all-mpnet-base-v2)",
        task=_MEAN,
        make=_bi("mpnet"),
        passes=_cpu(6, 12, pruned=0, masked=0),
        half=_BY_DISTANCE,
    ),
    Case(
        model="ALBERT (paraphrase-albert-small-v2)",
        task=_MEAN,
        make=_bi("albert"),
        passes=_cpu(8, 13, pruned=0),
        half=_gpu(gelus=0),
    ),
    Case(
        model="CamemBERT (sentence-camembert-base)",
        task=_MEAN,
        make=_bi("camembert"),
        passes=_cpu(6, 12, pruned=0),
        half=_gpu(norms=5, embedded=0),
    ),
    Case(
        model="DeBERTa-v3 (fine-tuned from deberta-v3-base)",
        task=_MEAN,
        make=_bi("deberta-v3"),
        passes=_cpu(0, 12, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="ModernBERT (gte-modernbert)",
        task="bi-encoder, cls",
        make=_bi("modernbert", pooling="cls"),
        passes=_cpu(3, 8, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="BERT and modules (Pooling, Dense; the form of ettin-reranker)",
        task=_CROSS,
        make=checkpoints.save_modular_cross_encoder,
        passes=_cpu(6, 12),
        half=_gpu(),
        newest=True,
    ),
    Case(
        model="Qwen3 (Qwen3-Reranker)",
        task="cross-encoder, yes or no",
        make=checkpoints.save_decoder_reranker,
        passes=_cpu(12, 14, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="Qwen3 (zerank-1, zerank-2)",
        task="cross-encoder, the logit of one token, sigmoid(x / 5)",
        make=partial(
            checkpoints.save_decoder_reranker,
            template=decoders.ZERANK_TEMPLATE,
            modules=True,
            false_token=None,
            identity=True,
        ),
        passes=_cpu(12, 14, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
        asked=AskedScore(activation=Activation.SIGMOID, scale=0.2),
    ),
    Case(
        model="Qwen2 (mxbai-rerank-base-v2, -large-v2)",
        task="cross-encoder, 1 or 0",
        make=partial(
            checkpoints.save_decoder_reranker,
            architecture="qwen2",
            template=decoders.MXBAI_TEMPLATE,
            modules=True,
            true_token="1",
            false_token="0",
            seed=1,  # another one of random weights would be hard on eight bits
        ),
        passes=_cpu(12, 14, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="Qwen3 (converted rerankers)",
        task="cross-encoder, classifier",
        make=checkpoints.save_decoder_classifier,
        passes=_cpu(12, 14, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="Qwen3 (Qwen3-Embedding)",
        task="bi-encoder, lasttoken",
        make=embedders.save_decoder_bi_encoder,
        passes=_cpu(12, 14, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
        newest=True,
    ),
    Case(
        model="BERT (splade-v3, splade-cocondenser)",
        task="sparse encoder",
        make=embedders.save_sparse_encoder,
        passes=_cpu(6, 14, pruned=0),
        half=_POOLING,
        newest=True,
    ),
    Case(
        model="Gemma 3 (EmbeddingGemma)",
        task="bi-encoder, mean, two Dense, padded on the left",
        make=partial(embedders.save_embedding_gemma, prompts={"query": "task: search result | query: "}),
        passes=_cpu(18, 23, pruned=0, **_NO_ATTENTION),
        half=_OTHER_FORM,
    ),
    Case(
        model="BERT and a table for queries (opensearch-neural-sparse-encoding-doc-v2-distill, -doc-v3-distill)",
        task="sparse encoder, documents",
        make=embedders.save_routed_sparse_encoder,
        passes=_cpu(6, 14, pruned=0),
        half=_POOLING,
    ),
    Case(
        model="StaticEmbedding (static-retrieval-mrl-en-v1, static-similarity-mrl-multilingual-v1)",
        task="bi-encoder, the mean of a table's rows",
        make=tables.save_static,
        passes=_TABLE,
        half=_NO_GPU,
    ),
    Case(
        model="model2vec (potion-base-8M, potion-multilingual-128M)",
        task="bi-encoder, the mean of a table's rows",
        make=tables.save_potion,
        passes=_TABLE,
        half=_NO_GPU,
    ),
    Case(
        model="model2vec with a quantised vocabulary",
        task="bi-encoder, the mean of a table's rows",
        make=partial(tables.save_potion, clusters=40, dtype="float16"),
        passes=_TABLE,
        half=_NO_GPU,
    ),
    _pooled("cls", pruned=1, half=_gpu()),
    _pooled("max", half=_POOLING),
    _pooled("mean_sqrt_len_tokens", half=_POOLING),
    _pooled("weightedmean", half=_POOLING),
    _pooled("lasttoken", half=_POOLING),
    _pooled("cls", "mean", half=_gpu()),
    *OWN_CODE,
)


def _edited(file: str, **changes: object) -> Make:
    def make(directory: Path) -> None:
        checkpoints.save_cross_encoder(directory)
        checkpoints.edit_json(directory / file, **changes)

    return make


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        what="another activation than Identity, Sigmoid and Softmax of torch",
        make=partial(checkpoints.save_cross_encoder, activation="torch.nn.modules.activation.Tanh"),
        reason="its activation is Tanh",
    ),
    Refusal(
        what="XLM-R with an adapter for each task (jina-embeddings-v3)",
        make=_edited(
            "config.json",
            lora_adaptations=["retrieval.query", "retrieval.passage", "text-matching"],
            auto_map={"AutoModel": "modeling_lora.XLMRobertaLoRA"},
        ),
        reason="depend on a task that each call names (retrieval.query, retrieval.passage, text-matching",
    ),
    Refusal(
        what="a tokenizer that pads on the left",
        make=_edited("tokenizer_config.json", padding_side="left"),
        reason="padding on the left",
    ),
    *OWN_REFUSALS,
)
