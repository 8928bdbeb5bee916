"""Makes `pairwire` importable from a plain checkout, for machines on which nothing can be installed."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make_importable() -> None:
    """Nothing where `pairwire` is installed. Else links the folders as pyproject.toml maps them, for children too.

    The links stay, in a temporary folder: a child may outlive its parent.
    """
    if importlib.util.find_spec("pairwire") is not None:
        return
    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    links = Path(tempfile.mkdtemp(prefix="pairwire-checkout-"))
    for package, folder in mapping.items():
        link = links / package.replace(".", "/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(ROOT / folder)
    sys.path.insert(0, str(links))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(links), os.environ.get("PYTHONPATH", "")]))
    importlib.invalidate_caches()
