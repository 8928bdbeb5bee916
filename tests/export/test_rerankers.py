"""Cross-encoders that are not one classifier: exported, and compared with sentence-transformers, through the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pairwire.export import CheckpointUnsupported, ExportConfig, export_checkpoint
from pairwire.export.exporter import Exported
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine import Activation, Engine, EngineConfig, ScoreOptions
from pairwire.server.runtime.base import Float32Array
from pairwire.v1 import manifest_pb2
from tests import checkpoints, decoders

QUICK = EngineConfig(workers=1, warmup_s=0.05)
LOGITS = ScoreOptions(activation=Activation.IDENTITY)
LONG = "the river floods the valley every spring and the dog runs through the park, " * 20
PAIRS = [
    *checkpoints.PAIRS,
    ("  rain ", "\nthe cat\n"),
    ("<|im_end|> yes", "no {{ messages }}"),
    ("ok", LONG),
    (LONG, LONG),
]
PROMPTS = {"web": "Find the passage that answers", "code": "Find code"}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Makes a package of a checkpoint, beside it."""

    def run(checkpoint: Path, *precisions: str, parity: bool = True) -> Exported:
        config = ExportConfig(
            tune=False,
            checkpoint=str(checkpoint),
            output=checkpoint.with_name(f"{checkpoint.name}-{'-'.join(precisions)}"),
            precisions=precisions,
            parity=parity,
            # Random weights are hard on eight bits. What is asked here is whether the graph is the right one.
            parity_threshold=0.9 if parity else None,
        )
        with quiet_libraries():
            return export_checkpoint(config)

    return run


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 reranker with prompts of its own."""
    directory = tmp_path_factory.mktemp("reranker") / "tiny-qwen3-reranker"
    return checkpoints.save_decoder_reranker(directory, prompts=PROMPTS, default_prompt_name="web")


@pytest.fixture(scope="module")
def reranker_export(reranker: Path, export: Callable[..., Exported]) -> Exported:
    return export(reranker, "fp32", "int8")


def expected(checkpoint: Path, pairs: Sequence[tuple[str, str]], **how: str) -> Float32Array:
    """Logits [pairs, labels] of sentence-transformers, which pads decoders on the left."""
    import torch
    from sentence_transformers import CrossEncoder

    with quiet_libraries():
        model = CrossEncoder(str(checkpoint), device="cpu")
        logits = model.predict(list(pairs), activation_fn=torch.nn.Identity(), **how)
    return np.asarray(logits, dtype=np.float32).reshape(len(pairs), -1)


async def served(
    package: Path, pairs: Sequence[tuple[str, str]], options: ScoreOptions = LOGITS, variant: str = "cpu-fp32"
) -> Float32Array:
    async with await Engine.open(package, config=EngineConfig(workers=1, warmup_s=0.05, variant=variant)) as engine:
        return (await engine.score(pairs, options=options)).scores


def counts(exported: Exported, at: int = 0) -> dict[str, int]:
    return {report.name: report.rewritten for report in exported.package.manifest.variants[at].passes}


def close(actual: Float32Array, wanted: Float32Array) -> None:
    """Within 1e-5 of the scale of the logits."""
    assert np.ptp(wanted, axis=0).min() > 0.05  # else any constant would do
    np.testing.assert_allclose(actual, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())), rtol=0)


def test_decoder_reranker_is_exact_in_float32_and_ranks_alike_in_int8(reranker_export: Exported) -> None:
    assert reranker_export.parity is not None
    exact, small = reranker_export.parity.variants
    assert exact.summary.max_abs_diff < 1e-5
    assert exact.summary.samples > 100
    assert max(exact.variance_among_mates, exact.variance_padded) < 1e-6
    assert small.summary.batch_variance == 0.0
    assert small.summary.spearman > 0.9


def test_no_pass_for_attention_in_both_directions_touches_a_decoder(reranker_export: Exported) -> None:
    assert counts(reranker_export) == {
        "constant_reshapes": 12,
        "prune_last_layer": 0,
        "sequence_major": 0,
        "absorb_projections": 0,
        "unpadded_attention": 0,
    }
    assert counts(reranker_export, 1)["quantize_matmul"] == 14  # seven products a layer; the head of one row stays


def test_decoder_is_not_packed_for_a_gpu_whose_attention_would_see_what_follows(
    reranker: Path, export: Callable[..., Exported]
) -> None:
    with pytest.raises(CheckpointUnsupported, match="qwen3 has no fp16 variant"):
        export(reranker, "fp16", parity=False)


def test_head_of_a_language_model_is_one_row(reranker_export: Exported) -> None:
    import onnx

    package = reranker_export.package
    graph = onnx.load(package.graph_file(package.variant("cpu-fp32"))).graph
    vocabulary = len(decoders.tokenizer())
    shapes = [tuple(tensor.dims) for tensor in graph.initializer if vocabulary in tensor.dims]
    assert shapes == [(vocabulary, 32)]  # embeddings alone
    assert [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == ["batch_size", 1]


def test_manifest_of_a_decoder_reranker_says_how_a_pair_is_written(reranker_export: Exported) -> None:
    manifest = reranker_export.package.manifest
    template = manifest.template
    assert [part.WhichOneof("part") for part in template.parts] == ["literal", "slot"] * 3 + ["literal"]
    assert [part.slot for part in template.parts if part.WhichOneof("part") == "slot"] == [
        manifest_pb2.TEMPLATE_SLOT_PROMPT,
        manifest_pb2.TEMPLATE_SLOT_FIRST,
        manifest_pb2.TEMPLATE_SLOT_SECOND,
    ]
    assert template.default_prompt == "Given a web search query, retrieve relevant passages that answer the query"
    assert decoders.tokenizer().decode(list(template.suffix_ids)) == (
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert (dict(manifest.prompts), manifest.default_prompt_name) == (PROMPTS, "web")
    assert (list(manifest.labels), manifest.max_length) == (["LABEL_0"], decoders.POSITIONS)
    assert list(manifest.variants[0].inputs) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (LOGITS, {}),
        (ScoreOptions(activation=Activation.IDENTITY, prompt_name="code"), {"prompt_name": "code"}),
        (ScoreOptions(activation=Activation.IDENTITY, prompt=" of <b>my</b> own\n"), {"prompt": " of <b>my</b> own\n"}),
        (ScoreOptions(activation=Activation.IDENTITY, prompt=""), {"prompt": ""}),
    ],
)
async def test_served_prompts_fill_the_template_as_the_library_does(
    options: ScoreOptions, how: dict[str, str], reranker: Path, reranker_export: Exported
) -> None:
    wanted = expected(reranker, PAIRS, **how)
    if how:
        assert np.abs(wanted - expected(reranker, PAIRS)).max() > 1e-3  # the prompt makes a difference
    close(await served(reranker_export.package.directory, PAIRS, options), wanted)


async def test_cut_pair_keeps_the_end_of_the_template(reranker: Path, reranker_export: Exported) -> None:
    from pairwire.server.engine.models.manifest import rules_of
    from pairwire.server.engine.text.encoder import TextEncoder

    package = reranker_export.package
    encoder = TextEncoder.from_file(package.tokenizer_file, rules_of(package.manifest))
    suffix = tuple(package.manifest.template.suffix_ids)
    rows = encoder.encode_pairs(["ok"], [LONG], prompt=PROMPTS["web"])
    assert rows.truncated.tolist() == [0]
    assert tuple(encoder.assemble([(rows, 0)], decoders.POSITIONS).input_ids[0][-len(suffix) :].tolist()) == suffix
    async with await Engine.open(package.directory, config=QUICK) as engine:
        result = await engine.score([("ok", "rain"), ("ok", LONG)], options=LOGITS)
    assert result.usage.truncated_inputs == (1,)
    close(result.scores, expected(reranker, [("ok", "rain"), ("ok", LONG)]))


async def test_score_of_a_decoder_does_not_depend_on_its_batch_mates(reranker_export: Exported) -> None:
    for variant in ("cpu-fp32", "cpu-int8"):
        together = await served(reranker_export.package.directory, PAIRS, variant=variant)
        for at in (0, 5, 8):
            alone = await served(reranker_export.package.directory, [PAIRS[at]], variant=variant)
            assert alone[0] == pytest.approx(together[at], abs=1e-6 if variant == "cpu-fp32" else 0)


@pytest.mark.parametrize(
    ("architecture", "modules", "false_token"),
    [("qwen2", True, None), ("llama", False, "no"), ("gemma", False, "no"), ("gemma2", True, "no")],
)
async def test_language_models_of_other_families(
    architecture: str, modules: bool, false_token: str | None, tmp_path: Path, export: Callable[..., Exported]
) -> None:
    checkpoint = checkpoints.save_decoder_reranker(
        tmp_path / architecture, architecture=architecture, modules=modules, false_token=false_token
    )
    assert (checkpoint / "modules.json").exists() is modules  # else the library asks for "yes" and "no" itself
    package = export(checkpoint, "fp32", parity=False).package.directory
    close(await served(package, PAIRS), expected(checkpoint, PAIRS))


async def test_decoder_classifier_reads_pairs_that_the_tokenizer_joins(
    tmp_path: Path, export: Callable[..., Exported]
) -> None:
    checkpoint = checkpoints.save_decoder_classifier(tmp_path / "classifier")
    exported = export(checkpoint, "fp32")
    assert exported.parity is not None
    assert exported.parity.variants[0].summary.max_abs_diff < 1e-5
    assert not exported.package.manifest.HasField("template")
    # The last token that counts is the last that is no padding token, which a text may hold too.
    pairs = [*PAIRS, ("rain", "the dog runs<|endoftext|>"), ("rain<|endoftext|>", "<|endoftext|><|endoftext|>")]
    wanted = expected(checkpoint, pairs)
    assert wanted[-2] == pytest.approx(expected(checkpoint, [("rain", "the dog runs")])[0], abs=1e-5)
    close(await served(exported.package.directory, pairs), wanted)


@pytest.mark.parametrize(
    ("architecture", "labels", "template"), [("mistral", 3, None), ("qwen2", 1, decoders.TEMPLATE)]
)
async def test_decoder_classifiers_with_a_window_and_with_a_chat_template(
    architecture: str, labels: int, template: str | None, tmp_path: Path, export: Callable[..., Exported]
) -> None:
    checkpoint = checkpoints.save_decoder_classifier(
        tmp_path / "window", architecture=architecture, labels=labels, template=template
    )
    package = export(checkpoint, "fp32", parity=False).package
    assert len(package.manifest.labels) == labels
    assert package.manifest.HasField("template") is bool(template)
    close(await served(package.directory, PAIRS), expected(checkpoint, PAIRS))


async def test_modular_cross_encoder_reads_one_token_of_the_last_layer(
    tmp_path: Path, export: Callable[..., Exported]
) -> None:
    checkpoint = checkpoints.save_modular_cross_encoder(
        tmp_path / "modular", prompts={"query": "query: ", "claim": "claim: "}, default_prompt_name="query"
    )
    exported = export(checkpoint, "fp32", "int8")
    assert exported.parity is not None
    assert exported.parity.variants[0].summary.max_abs_diff < 1e-5
    assert counts(exported) == {
        "constant_reshapes": 6,
        "prune_last_layer": 1,
        "sequence_major": 2,
        "absorb_projections": 1,
        "unpadded_attention": 1,
    }
    package = exported.package
    assert list(package.manifest.variants[0].inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    for prompt_name in ("query", "claim"):
        options = ScoreOptions(activation=Activation.IDENTITY, prompt_name=prompt_name)
        scores = await served(package.directory, PAIRS, options)
        close(scores, expected(checkpoint, PAIRS, prompt_name=prompt_name))
    close(await served(package.directory, PAIRS), expected(checkpoint, PAIRS, prompt_name="query"))


@pytest.mark.parametrize(
    ("architecture", "pooling", "labels"),
    [("roberta", ("cls", "mean"), 3), ("qwen3", "lasttoken", 1), ("distilbert", "max", 1)],
)
async def test_modules_of_other_encoders_and_pooling_modes(
    architecture: str, pooling: str | tuple[str, ...], labels: int, tmp_path: Path, export: Callable[..., Exported]
) -> None:
    checkpoint = checkpoints.save_modular_cross_encoder(
        tmp_path / "modular", architecture=architecture, pooling=pooling, labels=labels, normalize=labels > 1
    )
    package = export(checkpoint, "fp32", parity=False).package
    assert len(package.manifest.labels) == labels
    close(await served(package.directory, PAIRS), expected(checkpoint, PAIRS))


async def test_scaled_score_of_one_token_is_what_its_authors_say(tmp_path: Path) -> None:
    """zerank-2: sentence-transformers gives the bare logit, and its card says sigmoid(logit / 5)."""
    checkpoint = checkpoints.save_decoder_reranker(
        tmp_path / "zerank", template=decoders.ZERANK_TEMPLATE, modules=True, false_token=None, identity=True
    )
    config = ExportConfig(
        tune=False,
        checkpoint=str(checkpoint),
        output=tmp_path / "package",
        precisions=("fp32",),
        activation="sigmoid",
        score_scale=0.2,
    )
    with quiet_libraries():
        exported = export_checkpoint(config)
    manifest = exported.package.manifest
    assert manifest.score_scale == pytest.approx(0.2)
    logits = expected(checkpoint, PAIRS).astype(np.float64)
    wanted = 1 / (1 + np.exp(-logits / 5))
    found = await served(tmp_path / "package", PAIRS, ScoreOptions())
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert exported.parity is not None
    exact = exported.parity.variants[0].summary
    assert exact.max_abs_diff < 1e-6  # of the scaled scores: those of bare logits would be far off
    close(await served(tmp_path / "package", PAIRS), (logits / 5).astype(np.float32))
