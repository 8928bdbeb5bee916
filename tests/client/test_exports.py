"""The public API is a list, and this guards it."""

import subprocess
import sys
import types

import pairwire.client


def test_every_public_name_is_exported_and_nothing_else() -> None:
    public = {
        name
        for name, value in vars(pairwire.client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(pairwire.client.__all__)


def test_the_list_is_sorted() -> None:
    assert pairwire.client.__all__ == sorted(pairwire.client.__all__)


def test_the_client_works_without_server_and_exporter() -> None:
    script = (
        "import sys, pairwire.client; "
        "print(*[name for name in sys.modules if name.startswith(('pairwire.server', 'pairwire.export', 'tqdm'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
