"""`pairwire models`."""

import json

from tests.cli.conftest import Run


def test_models_are_a_table(remote: Run) -> None:
    done = remote("models")
    assert done.code == 0
    head, row = done.lines
    assert head.split() == ["model", "kind", "variant", "provider", "tokens", "threads", "buckets"]
    assert row.split() == [
        "fake",
        "cross-encoder",
        "cpu-int8",
        "CPUExecutionProvider",
        "512",
        *["2", "x", "1", "2:", "16", "to", "32"],
    ]


def test_models_in_json_are_an_object_a_line(remote: Run) -> None:
    record = json.loads(remote("models", "--json").out)
    assert record["name"] == "fake"
    assert record["bucket_lengths"] == [16, 32]
