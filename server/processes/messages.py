"""What supervisor and servers tell each other: lines of JSON over a socket pair, a kind and a text each.

A server learns that its supervisor has gone, and the supervisor that a server has, by the end of the stream.
"""

from __future__ import annotations

import base64
import json
import pickle
from dataclasses import dataclass
from enum import StrEnum

from ..config import ServerConfig
from .shares import Share


class Order(StrEnum):
    """From the supervisor. SPEC comes first, once."""

    SPEC = "spec"
    SERVE = "serve"
    """Listen: sent when the models of this one, and at first start of all, are loaded."""
    REPORT = "report"
    """Answer with the metrics; whoever does not is taken to hang."""
    DRAIN = "drain"
    RELOAD = "reload"
    """Read keys and certificates again: a signal to the supervisor is for all."""


class News(StrEnum):
    """From a server."""

    LOADED = "loaded"
    """Models are warm; with the start-up table."""
    READY = "ready"
    """Listening."""
    FAILED = "failed"
    """Cannot start; with the sentence for people."""
    REPORT = "report"
    """With the metrics in Prometheus' text format; the last one comes unasked, at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """All that a server needs to know."""

    number: int
    """From 0."""
    share: Share
    config: ServerConfig
    """With the port in force, and without metrics of its own."""

    def to_text(self) -> str:
        """As the text of a SPEC. A pickle: both ends are the same code of the same user."""
        return base64.b64encode(pickle.dumps(self)).decode()

    @staticmethod
    def from_text(text: str) -> Spec:
        """What ``to_text`` wrote."""
        spec = pickle.loads(base64.b64decode(text))
        assert isinstance(spec, Spec)
        return spec


def encode(kind: Order | News, text: str = "") -> bytes:
    """A line."""
    return json.dumps([kind.value, text]).encode() + b"\n"


def decode(line: bytes) -> tuple[str, str]:
    """Kind and text of a line. Raises ValueError for what is no line of ours."""
    kind, text = json.loads(line)
    return kind, text
