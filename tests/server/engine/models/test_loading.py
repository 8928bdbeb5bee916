"""From a package directory to answers, through ONNX Runtime."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pairwire.server.engine import Engine, EngineConfig, Model, ModelKind, SimClock, build_model
from pairwire.server.engine.models.loading import choose_variant
from pairwire.server.engine.models.manifest import rules_of
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.engine.text.pair_template import PairTemplate, Slot
from pairwire.server.errors import ConfigInvalid, PackageInvalid
from pairwire.server.package import Package, sha256_of
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import manifest_pb2
from tests.server import packages
from tests.server.engine import toys

QUICK = EngineConfig(workers=2, warmup_s=0.05)
PAIRS = [("the quick fox", "the lazy dog"), ("bake bread", ""), ("the " * 50, "dog " * 50)]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return packages.save_package(tmp_path / "toy", toys.cross_encoder_manifest(), toys.wordpiece())


def _expected(first: str, second: str, max_length: int = 64) -> float:
    tokenizer = toys.wordpiece()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    encoding = tokenizer.encode(first, second)
    return float(sum(encoding.ids) + sum(encoding.type_ids))


async def test_a_package_is_opened_and_serves(package: Path) -> None:
    async with await Engine.open(package, config=QUICK) as engine:
        result = await engine.score(PAIRS, timeout_s=60)
        info = engine.models["toy"]
    assert result.scores[:, 0].tolist() == [_expected(*pair) for pair in PAIRS]
    assert result.usage.truncated_inputs == (2,)
    assert (info.kind, info.variant, info.runtime.provider) == (
        ModelKind.CROSS_ENCODER,
        "cpu-fp32",
        "CPUExecutionProvider",
    )
    assert info.manifest.name == "toy"


async def test_two_packages_share_one_engine(package: Path, tmp_path: Path) -> None:
    manifest = toys.bi_encoder_manifest(dimensions=3)
    embedder = packages.save_package(tmp_path / "embedder", manifest, toys.wordpiece())
    async with await Engine.open(package, embedder, config=QUICK) as engine:
        scores = await engine.score(PAIRS)
        vectors = await engine.embed(["the fox", "the dog"])
    assert scores.scores.shape == (3, 1)
    assert vectors.embeddings.tolist() == [
        [sum(toys.wordpiece().encode(text).ids)] * 3 for text in ("the fox", "the dog")
    ]


async def test_a_text_scores_the_same_alone_and_among_others(package: Path) -> None:
    async with await Engine.open(package, config=QUICK) as engine:
        together = await engine.score(PAIRS * 20)
        for index, pair in enumerate(PAIRS):
            alone = await engine.score([pair])
            assert together.scores[index::3, 0].tolist() == [alone.scores[0, 0]] * 20


async def test_truncation_on_the_left_comes_from_the_manifest(tmp_path: Path) -> None:
    manifest = toys.cross_encoder_manifest()
    manifest.truncation_side = manifest_pb2.TRUNCATION_SIDE_LEFT
    left = packages.save_package(tmp_path / "left", manifest, toys.wordpiece())
    tokenizer = toys.wordpiece()
    tokenizer.enable_truncation(64, strategy="longest_first", direction="left")
    pair = ("fox " * 50 + "the", "bread " * 50 + "dog")
    async with await Engine.open(left, config=QUICK) as engine:
        result = await engine.score([pair])
    encoding = tokenizer.encode(*pair)
    assert result.scores[0, 0] == sum(encoding.ids) + sum(encoding.type_ids)


def test_rules_for_text_come_from_the_manifest() -> None:
    manifest = toys.cross_encoder_manifest()
    plain = rules_of(manifest)
    assert (plain.template, plain.prompt_excluded, plain.vocab_size) == (None, False, 0)
    manifest.vocab_size, manifest.prompt_excluded = 300, True
    manifest.template.default_prompt = "judge"
    manifest.template.suffix_ids.extend([7, 8])
    add = manifest.template.parts.add
    add(literal="q: ")
    for slot in (
        manifest_pb2.TEMPLATE_SLOT_FIRST,
        manifest_pb2.TEMPLATE_SLOT_PROMPT,
        manifest_pb2.TEMPLATE_SLOT_SECOND,
    ):
        add(slot=slot)
    rules = rules_of(manifest)
    assert (rules.prompt_excluded, rules.vocab_size) == (True, 300)
    assert rules.template == PairTemplate(("q: ", Slot.FIRST, Slot.PROMPT, Slot.SECOND), "judge", (7, 8))


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ([1, 2, 3, 9], "template slot 9 is unknown; export the model again"),
        ([2, 0], "template slot 0 is unknown"),
        ([1, 2], "template: a text template without the slot second; export the model again"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused(slots: list[int], message: str) -> None:
    manifest = toys.cross_encoder_manifest()
    for slot in slots:
        manifest.template.parts.add().slot = slot  # type: ignore[assignment]  # proto3 keeps numbers it does not know
    with pytest.raises(PackageInvalid, match=message):
        rules_of(manifest)


async def test_a_damaged_graph_is_never_loaded(package: Path) -> None:
    with (package / packages.GRAPH_FILE).open("ab") as graph:
        graph.write(b"!")
    with pytest.raises(PackageInvalid, match=r"cpu-fp32\.onnx: sha256 is"):
        await Engine.open(package, config=QUICK)


async def test_a_variant_that_is_not_there_is_named_with_those_that_are(package: Path) -> None:
    with pytest.raises(PackageInvalid, match="no variant 'cpu-int8' in this package; it has cpu-fp32"):
        await Engine.open(package, config=EngineConfig(variant="cpu-int8"))


async def test_a_graph_that_is_none_is_refused(package: Path, tmp_path: Path) -> None:
    manifest = toys.cross_encoder_manifest()
    packages.save_package(tmp_path / "other", manifest, toys.wordpiece())
    (package / packages.GRAPH_FILE).write_bytes(b"not a graph")
    manifest.variants[0].sha256 = sha256_of(package / packages.GRAPH_FILE)
    packages.write_manifest(package, manifest)
    with pytest.raises(PackageInvalid, match="cannot be loaded and run"):
        await Engine.open(package, config=QUICK)


async def test_a_graph_that_wants_more_than_text_is_refused(package: Path) -> None:
    manifest = toys.cross_encoder_manifest()
    shutil.rmtree(package)
    packages.save_package(package, manifest, toys.wordpiece())
    packages.save_sum_graph(package / packages.GRAPH_FILE, extra_input="pixel_values")
    manifest.variants[0].sha256 = sha256_of(package / packages.GRAPH_FILE)
    packages.write_manifest(package, manifest)
    with pytest.raises(PackageInvalid, match="asks for an input 'pixel_values'"):
        await Engine.open(package, config=QUICK)


async def test_a_graph_with_other_outputs_than_labels_is_refused(package: Path) -> None:
    manifest = toys.cross_encoder_manifest(labels=("no", "yes"))
    manifest.tokenizer_sha256 = sha256_of(package / "tokenizer.json")
    manifest.variants.add(
        name="cpu-fp32", file=packages.GRAPH_FILE, provider="cpu", sha256=sha256_of(package / packages.GRAPH_FILE)
    )
    packages.write_manifest(package, manifest)
    with pytest.raises(PackageInvalid, match=r"gave \(1, 1\), expected \(1, 2\)"):
        await Engine.open(package, config=QUICK)


async def test_the_same_package_twice_is_refused(package: Path) -> None:
    with pytest.raises(ConfigInvalid, match="two models are named 'toy'"):
        await Engine.open(package, package, config=QUICK)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("kind", 7, "toy: kind 7 is unknown"), ("activation", 9, "toy: activation 9 is unknown")],
)
def test_a_manifest_from_the_future_is_refused(field: str, value: int, message: str) -> None:
    manifest = toys.cross_encoder_manifest()
    setattr(manifest, field, value)
    encoder = TextEncoder(toys.wordpiece(), TextRules(max_length=64))
    with pytest.raises(PackageInvalid, match=message):
        build_model(manifest, encoder, FakeRuntime(), config=QUICK)


class Machine:
    """Starts one model again and again on a runtime that takes simulated time."""

    def __init__(self, cache_dir: Path | str) -> None:
        self.config = EngineConfig(cache_dir=str(cache_dir))
        self.clock = SimClock()
        self.token_s = 1e-5
        self.runtime = FakeRuntime()

    def start(self, on_run: Callable[[TokenBatch], None] | None = None) -> Model:
        """``runtime`` is then the one of this start."""
        manifest = toys.cross_encoder_manifest()
        manifest.variants.add(name="cpu-fp32", sha256="ab" * 32)
        encoder = TextEncoder(toys.wordpiece(), TextRules(max_length=64))
        self.runtime = FakeRuntime(on_run=on_run or self._take_time)
        return build_model(manifest, encoder, self.runtime, variant="cpu-fp32", config=self.config, clock=self.clock)

    def shapes(self) -> list[tuple[int, int]]:
        """What the last start ran."""
        return [(batch.rows, batch.length) for batch in self.runtime.batches]

    def _take_time(self, batch: TokenBatch) -> None:
        self.clock.advance(0.0001 + self.token_s * batch.rows * batch.length)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "cache")


WARM = [(1, 8), (8, 64)]
"""All that a start runs which finds costs of an earlier one: the smallest and the largest batch."""


def test_a_restart_does_not_measure_again(machine: Machine) -> None:
    first = machine.start()
    assert len(machine.shapes()) > len(WARM)
    second = machine.start()
    assert machine.shapes() == WARM
    assert second.costs.measured == first.costs.measured


@pytest.mark.parametrize("change", [{"batch_tokens": 256}, {"workers": 7}, {"intra_op_threads": 2}, {"warmup_s": 2.0}])
def test_another_layout_is_measured_for_itself(change: dict[str, float], machine: Machine) -> None:
    machine.start()
    if "intra_op_threads" in change:
        change = {**change, "workers": machine.config.worker_count() + 1}
    machine.config = dataclasses.replace(machine.config, **change)  # type: ignore[arg-type]  # any field
    machine.start()
    assert len(machine.shapes()) > len(WARM)


def test_costs_need_not_be_kept(machine: Machine, cache_home: Path) -> None:
    before = sorted(cache_home.rglob("*"))
    machine.config = EngineConfig(cache_dir="none")
    for _ in range(2):
        machine.start()
        assert len(machine.shapes()) > len(WARM)
    assert sorted(cache_home.rglob("*")) == before


def test_a_machine_that_is_quite_another_is_measured_again(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.start()
    machine.token_s *= 20
    slow = machine.start()
    assert "the largest batch takes 20 times what it says; measuring again" in caplog.text
    assert slow.costs.seconds(8, 64) == pytest.approx(0.0001 + machine.token_s * 512)
    machine.start()
    assert machine.shapes() == WARM


def test_a_model_with_known_costs_that_cannot_run_its_largest_batch_is_refused(machine: Machine) -> None:
    def crash(batch: TokenBatch) -> None:
        if (batch.rows, batch.length) == (8, 64):
            raise MemoryError("no room for 8 x 64")

    machine.start()
    with pytest.raises(MemoryError, match="8 x 64"):
        machine.start(on_run=crash)


async def test_a_damaged_file_of_costs_is_told_and_mended(
    package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(QUICK, cache_dir=str(tmp_path / "cache"))
    await (await Engine.open(package, config=config)).close()
    (file,) = (tmp_path / "cache" / "costs").iterdir()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    file.write_text("{")
    async with await Engine.open(package, config=config) as engine:
        assert len((await engine.score(PAIRS)).scores) == len(PAIRS)
    assert f"{file}: it is not JSON; measuring again" in caplog.text
    assert len(file.read_text()) > 100


async def test_a_cache_that_cannot_be_written_stops_nobody(
    package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    config = dataclasses.replace(QUICK, cache_dir=str(tmp_path / "file"))
    with caplog.at_level(logging.INFO):
        async with await Engine.open(package, config=config) as engine:
            assert len((await engine.score(PAIRS)).scores) == len(PAIRS)
    lines = [record for record in caplog.records if "costs" in record.message]
    assert ["not kept for the next start" in record.message for record in lines] == [True]


CPU_WHEEL, GPU_WHEEL = "onnxruntime", "onnxruntime-gpu"


def _package(*variants: str) -> Package:
    """Of variants that are named after provider and precision."""
    manifest = toys.cross_encoder_manifest()
    for name in variants:
        manifest.variants.add(name=name, provider=name.partition("-")[0])
    return Package(Path("models/toy"), manifest)


@pytest.mark.parametrize(
    ("variants", "config", "wheel", "chosen"),
    [
        (("cpu-int8", "cuda-fp16"), EngineConfig(), CPU_WHEEL, "cpu-int8"),
        (("cpu-int8", "cuda-fp16"), EngineConfig(), GPU_WHEEL, "cuda-fp16"),
        (("cuda-fp16", "cpu-fp32"), EngineConfig(), CPU_WHEEL, "cpu-fp32"),
        (("cuda-fp16", "cpu-fp32"), EngineConfig(provider="cpu"), GPU_WHEEL, "cpu-fp32"),
        (("cpu-int8", "cuda-fp16"), EngineConfig(provider="cuda"), CPU_WHEEL, "cuda-fp16"),
        (("cpu-int8", "cpu-fp32", "cuda-fp16"), EngineConfig(variant="cpu-fp32"), GPU_WHEEL, "cpu-fp32"),
        (("cpu-int8", "cuda-fp16"), EngineConfig(variant="cuda-fp16"), CPU_WHEEL, "cuda-fp16"),
        (("cpu-int8", "cpu-fp32"), EngineConfig(variant="cpu-fp32", provider="cpu"), CPU_WHEEL, "cpu-fp32"),
    ],
)
def test_the_variant_is_the_best_for_the_provider_or_the_one_that_is_named(
    variants: tuple[str, ...], config: EngineConfig, wheel: str, chosen: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_variant(_package(*variants), config, wheel).name == chosen
    assert caplog.text == ""


def test_a_package_without_a_variant_for_the_gpu_runs_on_the_cpu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_variant(_package("cpu-fp32"), EngineConfig(), GPU_WHEEL).name == "cpu-fp32"
    assert "models/toy has no variant for a GPU and runs on the CPU; export it with --precision fp16" in caplog.text


def test_a_gpu_that_is_asked_for_is_not_replaced_by_the_cpu() -> None:
    with pytest.raises(PackageInvalid, match="no variant for the provider 'cuda' in this package; it has cpu-fp32"):
        choose_variant(_package("cpu-fp32"), EngineConfig(provider="cuda"), GPU_WHEEL)


def test_a_variant_of_another_provider_than_the_one_asked_for_is_refused() -> None:
    config = EngineConfig(variant="cuda-fp16", provider="cpu")
    with pytest.raises(ConfigInvalid, match="variant: cuda-fp16 runs on cuda, provider says cpu"):
        choose_variant(_package("cpu-fp32", "cuda-fp16"), config, GPU_WHEEL)
