"""What the runner gives every script: where the server is, and what pairwire.v1 says of the texts."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

SERVER = os.environ["PAIRWIRE_SERVER"]
EXPECTED = SimpleNamespace(**json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text(encoding="utf-8")))


def refused(error, call, *parts):
    """Checks that the call raises this client's own error, with all these parts of a sentence in it."""
    try:
        call()
    except error as caught:
        said = str(caught)
        missing = [part for part in parts if part not in said]
        assert not missing, f"{said!r} does not say {missing}"
    else:
        raise AssertionError(f"nothing was refused, expected {parts}")
