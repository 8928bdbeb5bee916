"""Every client that is run has a snippet in docs/clients.md, and every snippet there is run."""

from __future__ import annotations

from pathlib import Path

from tests.clients.snippets import ADDRESS, HTTP_ADDRESS, Snippet, snippets
from tests.clients.table import CLIENTS

SCRIPTS = Path(__file__).parent.parent / "clients" / "scripts"


def test_every_client_has_a_snippet_and_every_snippet_a_client() -> None:
    found = snippets()
    assert found.keys() == {client.name for client in CLIENTS}
    for name, shown in found.items():
        assert any(ADDRESS in each.text or HTTP_ADDRESS in each.text for each in shown), (
            f"the snippet of {name} calls no server"
        )
        for each in shown:
            if each.language == "python":
                compile(each.text, name, "exec")


def test_every_script_belongs_to_a_client() -> None:
    scripts = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.*") if path.suffix in (".py", ".mjs")}
    assert scripts - {"given.py"} == {client.script for client in CLIENTS}


def test_of_a_console_what_is_typed_is_run() -> None:
    shown = Snippet("console", "$ one localhost:50051 \\\n    --more\nits output\n$ two\n")
    assert shown.at("host:1", "host:2") == "set -e\none host:1 \\\n    --more\ntwo"
