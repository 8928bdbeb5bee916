"""What is said of a client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """A client, in an environment of its own."""

    name: str
    """Also of its environment, and in docs/clients.md of its snippet: ``<!-- client: NAME -->``."""
    requirements: tuple[str, ...]
    """For pip, or npm; the versions that were tried."""
    script: str = ""
    """A file in scripts/, which is run with the environment's Python; empty where the snippet is all."""
    program: str = ""
    """A variable that names the client's program where pip has no wheel for this system."""
    npm: bool = False
    """Whether it is one of npm's, for node."""
