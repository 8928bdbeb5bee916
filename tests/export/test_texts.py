from __future__ import annotations

import json
from pathlib import Path

import pytest

from pairwire.export.errors import DataInvalid
from pairwire.export.texts import BUILT_IN, calibration_texts, parity_texts, read_texts
from pairwire.server.engine.kinds import ModelKind


@pytest.mark.parametrize("kind", list(ModelKind))
def test_calibration_and_parity_share_no_text(kind: ModelKind) -> None:
    calibration = {text for item in calibration_texts(kind).inputs for text in item}
    parity = {text for item in parity_texts(kind, 128).inputs for text in item}
    assert not calibration & parity


def test_parity_has_enough_pairs_for_a_rank_correlation() -> None:
    texts = parity_texts(ModelKind.CROSS_ENCODER, 512)
    assert len(texts.inputs) >= 100
    assert len(set(texts.inputs)) == len(texts.inputs)
    assert texts.origin == BUILT_IN


@pytest.mark.parametrize("kind", list(ModelKind))
@pytest.mark.parametrize("max_length", [64, 512, 8192])
def test_parity_texts_are_empty_and_over_long_and_of_many_scripts(kind: ModelKind, max_length: int) -> None:
    texts = [text for item in parity_texts(kind, max_length).inputs for text in item]
    assert "" in texts
    assert max(len(text) for text in texts) > 5 * max_length
    joined = "".join(texts)
    assert all(sample in joined for sample in ("😀", "日本", "почему", "สวัสดี", "გ", "[SEP]", "</s>"))


@pytest.mark.parametrize("kind", list(ModelKind))
def test_inputs_have_as_many_texts_as_the_kind_reads(kind: ModelKind) -> None:
    count = 2 if kind is ModelKind.CROSS_ENCODER else 1
    assert {len(item) for item in calibration_texts(kind).inputs} == {count}
    assert {len(item) for item in parity_texts(kind, 128).inputs} == {count}


def test_calibration_texts_have_realistic_lengths() -> None:
    words = sorted(
        sum(len(text.split()) for text in item) for item in calibration_texts(ModelKind.CROSS_ENCODER).inputs
    )
    assert words[0] <= 3
    assert words[-1] > 200


def test_pairs_are_read_as_objects_or_arrays(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"first": "a", "second": "b"}\n\n["c", "d"]\n')
    texts = read_texts(path, ModelKind.CROSS_ENCODER)
    assert texts.inputs == [("a", "b"), ("c", "d")]
    assert texts.origin == "pairs.jsonl"


def test_texts_are_read_as_strings_or_objects(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('"a"\n{"text": "b"}\n')
    assert read_texts(path, ModelKind.BI_ENCODER).inputs == [("a",), ("b",)]


@pytest.mark.parametrize(
    "line", ["{", "[1, 2]", '["a"]', '{"first": "a"}', '"a"', "7", '["a", "b", "c"]', '{"text": "a"}']
)
def test_line_that_is_no_pair_is_named_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'["a", "b"]\n{line}\n')
    with pytest.raises(DataInvalid, match=r"pairs\.jsonl:2: .*expected"):
        read_texts(path, ModelKind.CROSS_ENCODER)


def test_file_with_one_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(["a", "b"]))
    with pytest.raises(DataInvalid, match="1 lines; at least 2"):
        read_texts(path, ModelKind.CROSS_ENCODER)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_unreadable_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataInvalid, match=r"pairs\.jsonl: cannot be read"):
        read_texts(path, ModelKind.CROSS_ENCODER)
