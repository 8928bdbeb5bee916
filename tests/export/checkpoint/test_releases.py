from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairwire.export import toolset
from pairwire.export.checkpoint import releases
from pairwire.export.errors import CheckpointUnsupported

FLAT = {"rope_theta": 1e6, "rope_type": "default"}
NESTED = {"full_attention": {"rope_theta": 160000.0}, "sliding_attention": {"rope_theta": 10000.0}}
SCALED = {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pretend(transformers: str) -> None:
        found = toolset.Toolset({"transformers": transformers})
        monkeypatch.setattr(toolset, "look", lambda: found)

    return pretend


def written(directory: Path, **config: object) -> Path:
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("rope", "loaded", "wrong"),
    [
        (FLAT, {"rope_theta": 1e6}, ""),
        (FLAT, {"rope_theta": 1e4}, "rope_theta 1000000.0"),
        (NESTED, {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0}, ""),
        (NESTED, {"global_rope_theta": 10000.0, "local_rope_theta": 10000.0}, "full_attention: rope_theta 160000.0"),
        (NESTED, {"rope_theta": 160000.0, "rope_local_base_freq": 10000.0}, ""),
        (SCALED, {"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ""),
        (SCALED, {"rope_theta": 1e4, "rope_scaling": None}, "rope_type 'yarn', factor 4.0"),
    ],
)
def test_positions_that_transformers_4_would_read_wrongly_are_refused(
    rope: object, loaded: dict[str, object], wrong: str, tmp_path: Path, installed: Any
) -> None:
    installed("4.57.6")
    directory, config = written(tmp_path, rope_parameters=rope), SimpleNamespace(**loaded)
    if not wrong:
        releases.check_positions(directory, config)
        return
    with pytest.raises(CheckpointUnsupported) as caught:
        releases.check_positions(directory, config)
    assert f"rope_parameters ({wrong}) is read by transformers 5 alone" in str(caught.value)
    assert "transformers>=5" in str(caught.value)
    installed("5.24.0")
    releases.check_positions(directory, config)


def test_what_cannot_be_loaded_says_which_release_can(tmp_path: Path, installed: Any) -> None:
    installed("4.57.6")
    assert "transformers 5.24.0 has saved it" in releases.hint(written(tmp_path, transformers_version="5.24.0"))
    assert releases.hint(written(tmp_path, transformers_version="4.40.0")) == ""
    assert releases.hint(written(tmp_path)) == ""
    installed("5.24.0")
    assert releases.hint(written(tmp_path, transformers_version="4.40.0")) == ""
    own = written(tmp_path, transformers_version="4.40.0", auto_map={"AutoModel": "a.B"})
    assert "its code may need transformers 4: `pip install 'pairwire[export,optimum]'`" in releases.hint(own)
