"""The import rules of CONTRIBUTING.md: who may import whom, and what importing a package may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Folder -> top-level modules (or pairwire packages) that nothing below it may import, at any depth of the code.
FORBIDDEN = {
    "server": {
        "pairwire.export",
        "pairwire.client",
        "pairwire.cli",
        "torch",
        "transformers",
        "optimum",
        "sentence_transformers",
    },
    "server/engine": {"grpc", "pairwire.server.rpc", "pairwire.server.tuning"},
    "server/tuning": {"grpc", "pairwire.server.rpc"},
    "server/runtime": {"grpc", "pairwire.server.rpc", "pairwire.server.engine", "pairwire.server.tuning"},
    "client": {
        "pairwire.server",
        "pairwire.export",
        "pairwire.cli",
        "onnxruntime",
        "tokenizers",
        "torch",
        "transformers",
    },
    "export": {"pairwire.client", "pairwire.cli", "grpc"},
    "protos": {"pairwire.server", "pairwire.export", "pairwire.client", "pairwire.cli"},
}

# Package -> modules that must not be loaded by importing it.
HEAVY = {"onnxruntime", "torch", "transformers", "optimum", "sentence_transformers", "tokenizers", "onnx", "scipy"}
LIGHT_PACKAGES = ["pairwire.server", "pairwire.client", "pairwire.export", "pairwire.cli.main", "pairwire.v1"]


def _package_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "protos":
        parts = parts[2:]
    return ".".join(["pairwire", *parts[:-1]])


def _imports(path: Path) -> set[str]:
    """Absolute names of everything that a module imports, relative imports resolved."""
    package = _package_of(path).split(".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_import_crosses_a_layer_the_wrong_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no modules below {folder}: the rule checks nothing"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(_imports(path))
        for banned in FORBIDDEN[folder]
        if name == banned or name.startswith(f"{banned}.")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_clock_reads_the_time_in_the_server() -> None:
    readers = [
        str(path.relative_to(ROOT / "server"))
        for path in sorted((ROOT / "server").rglob("*.py"))
        if "time" in _imports(path)
    ]
    assert readers == ["engine/clock.py"]


@pytest.mark.parametrize("package", LIGHT_PACKAGES)
def test_importing_a_package_loads_nothing_heavy_and_touches_no_logging(package: str) -> None:
    script = f"""
import logging, sys
before = (logging.root.level, list(logging.root.handlers))
import {package}
assert (logging.root.level, list(logging.root.handlers)) == before, "logging was changed"
print(*sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_rule_sees_relative_imports() -> None:
    assert "pairwire.server.errors.InvalidInput" in _imports(ROOT / "server/engine/text.py")
