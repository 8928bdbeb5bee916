"""Harm to a real server, a little of it: the table says what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harm import main


@pytest.mark.slow
def test_each_kind_of_harm_has_its_row(cross_encoder_package: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    few = ["--connections", "2", "--megabytes", "1", "--seconds", "1", "--settle", "0"]
    drains = ["--drains", "1", "--callers", "2", "--load-seconds", "0.3"]
    main(["--package", str(cross_encoder_package), "--json", str(out), *few, *drains])
    uploads, readers, drain = json.loads(out.read_text(encoding="utf-8"))
    for row in (uploads, readers):
        assert row["most_mib"] >= row["before_mib"] > 0
        assert row["others"].startswith("OK ")
    assert "OK" not in uploads["codes"]  # they never arrive
    assert (drain["lost"], drain["exit_code"]) == (0, 0)
    assert "UNAVAILABLE 2" in drain["codes"]
