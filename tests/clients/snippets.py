"""The snippets of docs/clients.md: what stands below ``<!-- client: NAME -->``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "clients.md"
ADDRESS = "localhost:50051"
HTTP_ADDRESS = "localhost:8080"
"""What the page calls the server, and its HTTP port."""
_BLOCK = re.compile(
    r"^<!-- client: (?P<name>\S+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of the page."""

    language: str
    """``python``, ``js``, or ``console``: lines that begin with ``$`` are typed."""
    text: str

    def at(self, address: str, http: str) -> str:
        """The program, for the server there."""
        lines = self.text.replace(ADDRESS, address).replace(HTTP_ADDRESS, http)
        if self.language in ("python", "js"):
            return lines
        typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", lines, re.MULTILINE)
        return "set -e\n" + "\n".join(typed)


def snippets() -> dict[str, list[Snippet]]:
    """All of the page, by the name of their client."""
    found: dict[str, list[Snippet]] = {}
    for block in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        found.setdefault(block["name"], []).append(Snippet(block["language"], block["text"]))
    return found
