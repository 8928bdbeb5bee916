"""The import rules of CONTRIBUTING.md: who may import whom, and what importing a package may cost."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SHIPPED = (
    "batch",
    "cli",
    "client",
    "export",
    "integrations",
    "server",
    "protos/pairwire/v1",
    "protos/pairwire/foreign",
)

# Folder -> top-level modules (or pairwire packages) that nothing below it may import, at any depth of the code.
FORBIDDEN = {
    "batch": {"pairwire.export", "pairwire.cli", "torch", "transformers"},
    "server": {
        "pairwire.batch",
        "pairwire.export",
        "pairwire.client",
        "pairwire.cli",
        "torch",
        "transformers",
        "optimum",
        "sentence_transformers",
    },
    "server/engine": {
        "grpc",
        "pairwire.server.rpc",
        "pairwire.server.compat",
        "pairwire.server.tuning",
        "pairwire.server.repository",
    },
    "server/rpc": {"pairwire.server.compat", "pairwire.server.repository"},
    "server/repository": {"grpc", "pairwire.server.rpc", "pairwire.server.compat", "pairwire.server.tuning"},
    "server/engine/batching": {
        "tokenizers",
        "onnxruntime",
        "pairwire.server.engine.text",
        "pairwire.server.engine.models",
        "pairwire.server.engine.running",
    },
    "server/security": {"grpc", "pairwire.server.rpc", "pairwire.server.engine", "pairwire.server.compat"},
    "server/tuning": {"grpc", "pairwire.server.rpc", "pairwire.server.compat"},
    "server/runtime": {
        "grpc",
        "pairwire.server.rpc",
        "pairwire.server.compat",
        "pairwire.server.engine",
        "pairwire.server.tuning",
    },
    "client": {
        "pairwire.batch",
        "pairwire.server",
        "pairwire.export",
        "pairwire.cli",
        "onnxruntime",
        "tokenizers",
        "torch",
        "transformers",
    },
    "export": {"pairwire.batch", "pairwire.client", "pairwire.cli", "grpc"},
    "integrations": {"pairwire.batch", "pairwire.server", "pairwire.export", "pairwire.cli", "grpc"},
    "export/passes": {"torch", "transformers", "sentence_transformers"},
    "export/int8": {"torch", "transformers", "sentence_transformers"},
    "protos": {"pairwire.server", "pairwire.export", "pairwire.client", "pairwire.cli"},
}

# Package -> modules that must not be loaded by importing it.
HEAVY = {
    "onnxruntime",
    "torch",
    "transformers",
    "optimum",
    "sentence_transformers",
    "tokenizers",
    "onnx",
    "scipy",
    "pyarrow",
}
LIGHT_PACKAGES = [
    "pairwire.batch",
    "pairwire.server",
    "pairwire.client",
    "pairwire.export",
    "pairwire.cli.main",
    "pairwire.v1",
    "pairwire.foreign",
]


def _package_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "protos":
        parts = parts[2:]
    return ".".join(["pairwire", *parts[:-1]])


def _imports(path: Path) -> set[str]:
    """Absolute names of everything that a module imports, relative imports resolved."""
    return _names_imported(ast.parse(path.read_text(encoding="utf-8")), path)


def _names_imported(tree: ast.AST, path: Path) -> set[str]:
    package = _package_of(path).split(".")
    found: set[str] = set()
    for node in ast.walk(tree):
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
    assert readers == ["clock.py"]


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
    assert "pairwire.server.errors.InvalidInput" in _imports(ROOT / "server/engine/text/encoder.py")


def _modules() -> dict[str, Path]:
    """Name -> file of every module of the import packages."""
    files = [path for folder in SHIPPED for path in sorted((ROOT / folder).rglob("*.py"))]
    return {".".join([_package_of(path), *([] if path.name == "__init__.py" else [path.stem])]): path for path in files}


def _runtime_imports(path: Path) -> set[str]:
    """As `_imports`, without what only a type checker reads; imports inside functions are included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for name in ("body", "orelse"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [each for each in statements if not _is_type_checking(each)])
    return _names_imported(tree, path)


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = _modules()
    # A package is loaded before anything in it: `from . import storage` is an arrow to the module, none to the package.
    arrows = {
        name: {other for other in _runtime_imports(path) & modules.keys() if not f"{name}.".startswith(f"{other}.")}
        for name, path in modules.items()
    }
    circles = [names for names in _strongly_connected(arrows) if len(names) > 1]
    assert not circles, "\n".join(" <-> ".join(sorted(names)) for names in circles)


def _strongly_connected(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Tarjan's components: every two modules of one reach each other."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in arrows[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            found.append(set(stack[at:]))
            del stack[at:]

    for name in arrows:
        if name not in index:
            visit(name)
    return found


def test_a_circle_would_be_found() -> None:
    assert {"a", "b", "c"} in _strongly_connected({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})


PACKAGES = sorted(
    path.parent
    for folder in (*SHIPPED, "benchmarks", "examples")
    for path in (ROOT / folder).rglob("__init__.py")
    if "v1" not in path.parts
)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_stands_in_the_map_of_its_package(package: Path) -> None:
    doc = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    missing = sorted(name for name in modules | folders if not re.search(rf"(?<![\w/]){re.escape(name)}", doc))
    assert not missing, f"{package.relative_to(ROOT)}/__init__.py does not say what these are for: {missing}"
    named = set(re.findall(r"(?<![\w/])\w+\.py\b", doc)) - modules
    gone = sorted(name for name in named if not list(ROOT.glob(f"*/{name}")) and not list(package.parent.glob(name)))
    assert not gone, f"{package.relative_to(ROOT)}/__init__.py names modules that are not there: {gone}"


def test_every_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert sorted(listed) == listed
    assert set(listed) == {name for name, path in _modules().items() if path.name == "__init__.py"}
