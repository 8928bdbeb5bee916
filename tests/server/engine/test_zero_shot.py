"""Labels that the caller makes up: templates, which logits are read, and errors in the caller's own terms."""

from __future__ import annotations

import numpy as np
import pytest

from pairwire.server.engine import ClassifyOptions, Engine, EngineConfig, Model, ScoreOptions
from pairwire.server.engine.outputs.heads import Activation
from pairwire.server.engine.outputs.nli import NliLogits
from pairwire.server.engine.text.truncation import Truncation
from pairwire.server.engine.zero_shot import DEFAULT_TEMPLATE, HypothesisTemplate
from pairwire.server.errors import InvalidInput, WrongModelKind
from tests.server.engine import toys

NLI = ("contradiction", "entailment", "neutral")
TEXTS = ["the quick fox", "bake the bread"]
LABELS = ["bread", "the park", "a dog"]


def _model(name: str = "nli", labels: tuple[str, ...] = NLI) -> Model:
    return toys.toy_model(manifest=toys.cross_encoder_manifest(name, labels=labels))


def _engine(*models: Model) -> Engine:
    return Engine(models or [_model()], config=EngineConfig(workers=1))


@pytest.mark.parametrize(
    ("labels", "entailment", "contradiction"),
    [
        (("contradiction", "entailment", "neutral"), 1, 0),
        (("entailment", "neutral", "contradiction"), 0, 2),
        (("NEUTRAL", "CONTRADICTION", "Entailed"), 2, 0),
        (("entailment", "not_entailment"), 0, 1),
    ],
)
def test_logits_are_found_as_transformers_finds_them(
    labels: tuple[str, ...], entailment: int, contradiction: int
) -> None:
    assert NliLogits.of(labels) == NliLogits(entailment, contradiction)


@pytest.mark.parametrize("labels", [(), ("relevant",), ("no", "yes"), ("entailment",), ("not_entailment", "x")])
def test_a_model_without_entailment_has_no_such_logits(labels: tuple[str, ...]) -> None:
    assert NliLogits.of(labels) is None


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[[-1e30, 1e30, 0], [0, 1e30, 0]]], np.float32)
    for multi_label in (False, True):
        assert np.isfinite(NliLogits(1, 0).probabilities(logits, multi_label=multi_label)).all()


@pytest.mark.parametrize(
    ("template", "expected"),
    [(DEFAULT_TEMPLATE, "This example is a {b}."), ("{0}: {0}!", "a {b}: a {b}!"), ("{{x}} {}", "{x} a {b}")],
)
def test_a_template_puts_the_label_in_its_places(template: str, expected: str) -> None:
    read = HypothesisTemplate.of(template)
    assert read.render("a {b}") == expected
    assert read.size("a {b}") == len(expected)
    assert HypothesisTemplate.of("é {}").size("ü") == 5


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("no place", r"^hypothesis_template: 'no place' has no place for the label; put \{\} there"),
        ("", "has no place for the label"),
        ("{{}}", "has no place for the label"),
        ("{0.__class__.__init__.__globals__}", "is no place for the label"),
        ("{0[0]}", "is no place"),
        ("{:>2000000000}", "is no place"),
        ("{:{}}", "is no place"),
        ("{!r}", "is no place"),
        ("{1}", "is no place"),
        ("{label}", r"'\{label\}' is no place"),
        ("{", "cannot be read"),
        ("a } b {}", "cannot be read"),
        ("{} {}", r"has 2 places; write \{0\}"),
        (3, "expected text with"),
    ],
)
def test_a_template_that_is_no_sentence_is_refused(template: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        HypothesisTemplate.of(template)


@pytest.mark.parametrize("multi_label", [False, True])
async def test_scores_are_made_of_the_logits_of_text_and_hypothesis(multi_label: bool) -> None:
    async with _engine() as engine:
        options = ClassifyOptions(multi_label=multi_label, hypothesis_template="about {}")
        found = await engine.classify(TEXTS, LABELS, options=options)
        pairs = [(text, f"about {label}") for text in TEXTS for label in LABELS]
        raw = await engine.score(pairs, options=ScoreOptions(activation=Activation.IDENTITY))
    logits = raw.scores.astype(np.float64).reshape(2, 3, 3)
    others = logits[..., :2] if multi_label else logits[:, None, :, 1]
    expected = 1 / np.exp(others - logits[..., 1:2]).sum(axis=2)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-7)
    assert found.scores.dtype == np.float32
    assert found.usage.tokens == raw.usage.tokens
    assert found.model == "nli"


async def test_a_default_prompt_is_not_put_before_what_is_classified() -> None:
    manifest = toys.cross_encoder_manifest("nli", labels=NLI)
    manifest.prompts["query"], manifest.default_prompt_name = "find: ", "query"
    async with _engine(toys.toy_model(manifest=manifest)) as prompted, _engine() as plain:
        found, expected = [await each.classify(TEXTS, LABELS) for each in (prompted, plain)]
    np.testing.assert_array_equal(found.scores, expected.scores)


async def test_a_long_text_is_cut_and_its_hypothesis_is_not() -> None:
    async with _engine() as engine:
        found = await engine.classify(["fox", "the fox runs " * 40, "bread"], LABELS)
        assert found.usage.truncated_inputs == (1,)
        label = "a dog " * 40
        with pytest.raises(InvalidInput, match=r"^candidate_labels\[1\]: \d+ tokens .* exceed max_length 64"):
            await engine.classify(TEXTS, ["bread", label])
        whole = ClassifyOptions(truncation=Truncation.ERROR, max_length=18)
        with pytest.raises(InvalidInput, match=r"^candidate_labels\[0\]: .* \(it is read with texts\[1\]\)$"):
            await engine.classify(["a", "the fox runs in the park", "a"], ["bread"], options=whole)


async def test_the_only_model_that_knows_entailment_need_not_be_named() -> None:
    scorer, embedder = _model("scorer", ("relevant",)), toys.toy_model(manifest=toys.bi_encoder_manifest("mini"))
    async with _engine(scorer, _model(), embedder) as engine:
        assert (await engine.classify(TEXTS, LABELS)).model == "nli"
        with pytest.raises(WrongModelKind, match=r"'scorer' has no label that is called entailment \(relevant\)"):
            await engine.classify(TEXTS, LABELS, model="scorer")
        with pytest.raises(WrongModelKind, match="'mini' is a bi-encoder"):
            await engine.classify(TEXTS, LABELS, model="mini")
    async with _engine(scorer, embedder) as engine:
        with pytest.raises(
            WrongModelKind, match=r"^no model knows entailment; there is 'scorer' .* needs an NLI model"
        ):
            await engine.classify(TEXTS, LABELS)
    async with _engine(_model("a"), _model("b")) as engine:
        with pytest.raises(InvalidInput, match=r"^model: empty, but there are several .* 'a' .*'b'"):
            await engine.classify(TEXTS, LABELS)


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        ([], LABELS, r"^texts: empty"),
        (TEXTS, [], r"^candidate_labels: empty"),
        ("one text", LABELS, r"^texts: expected a list"),
        (TEXTS, "one, two", r"^candidate_labels: expected a list"),
        (TEXTS, ["a", "  "], r"^candidate_labels\[1\]: empty"),
        (TEXTS, ["a", 3], r"^candidate_labels\[1\]: expected text"),
        (["a", None], LABELS, r"^texts\[1\]: expected text"),
        (["a", "b", "\ud800"], LABELS, r"^texts\[2\]: not valid Unicode"),
        (TEXTS, ["a", "\ud800"], r"^candidate_labels\[1\]: not valid Unicode"),
    ],
)
async def test_bad_input_is_named_as_the_caller_knows_it(texts: list[str], labels: list[str], words: str) -> None:
    async with _engine() as engine:
        with pytest.raises(InvalidInput, match=words):
            await engine.classify(texts, labels)
        assert (await engine.classify(TEXTS, LABELS)).scores.shape == (2, 3)
