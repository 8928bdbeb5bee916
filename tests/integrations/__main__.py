"""``python -m tests.integrations [NAME ...]``: tests each integration in an environment of its own, which it makes.

Environments are kept in ``.clients/`` and need a package index once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FRAMEWORKS = {"langchain": "langchain-core", "llamaindex": "llama-index-core", "haystack": "haystack-ai"}
SHARED = ("-e", f"{ROOT}[cpu]", "filelock", "hypothesis", "onnx", "pytest", "pytest-asyncio", "pytest-timeout")


def main() -> int:
    """1 where a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.integrations", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FRAMEWORKS)} (default: all)")
    chosen = parser.parse_args().names or list(FRAMEWORKS)
    if unknown := set(chosen) - FRAMEWORKS.keys():
        parser.error(f"no such integration: {', '.join(sorted(unknown))}")
    failed = [name for name in chosen if not _tested(name)]
    print(
        f"{len(chosen) - len(failed)} of {len(chosen)} integrations work" + "".join(f", not {each}" for each in failed)
    )
    return int(bool(failed))


def _tested(name: str) -> bool:
    where = ROOT / ".clients" / f"integration-{name}"
    python = where / "bin" / "python"
    if not python.exists():
        venv.create(where, with_pip=True)
    print(f"== {name}: {FRAMEWORKS[name]}", flush=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *SHARED, FRAMEWORKS[name]]
    subprocess.run(pip, check=True)
    variables = os.environ | {"HAYSTACK_TELEMETRY_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    tests = [python, "-m", "pytest", "-p", "no:cacheprovider", f"tests/integrations/test_{name}.py"]
    return subprocess.run(tests, cwd=ROOT, env=variables).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
