"""A plain checkout on a machine where nothing can be installed: interpreters that know the dependencies, not us."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from benchmarks.checkout import ROOT, make_importable

PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
LIBRARIES = sysconfig.get_paths()["purelib"]
BARE = f"import sys; sys.path[:] = [{str(ROOT)!r}, *sys.path, {LIBRARIES!r}]\n"
"""Put in the path by hand, for `site` would run the hook of the installed checkout."""


def run(code: str, folder: Path, **environment: str) -> str:
    """What the code prints in an interpreter without `site`; its temporary files are in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", BARE + code],
        env={**kept, "TMPDIR": str(folder), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_it_the_package_is_not_there(tmp_path: Path) -> None:
    """Or the other tests would show nothing."""
    assert run("import importlib.util; print(importlib.util.find_spec('pairwire'))", tmp_path) == "None\n"


def test_every_package_of_the_checkout_can_be_imported(tmp_path: Path) -> None:
    code = "import importlib, benchmarks.checkout as c; c.make_importable()\n"
    code += f"for name in {sorted(PACKAGES)!r}: print(importlib.import_module(name).__file__)"
    found = [Path(line).resolve() for line in run(code, tmp_path).splitlines()]
    assert found == [ROOT / PACKAGES[name] / "__init__.py" for name in sorted(PACKAGES)]
    assert "pairwire.server" in PACKAGES


def test_modules_below_are_the_checkouts_own(tmp_path: Path) -> None:
    code = "import benchmarks.checkout as c; c.make_importable()\n"
    code += "from pairwire.server.engine import EngineConfig; import benchmarks.gpu.parity as p\n"
    code += "print(sys.modules['pairwire.server.engine'].__file__, p.COLUMNS[0])"
    file, column = run(code, tmp_path).split()
    assert Path(file).resolve() == ROOT / "server" / "engine" / "__init__.py"
    assert column == "dataset"


def test_children_can_import_it_through_pythonpath_which_keeps_what_it_had(tmp_path: Path) -> None:
    child = "import pairwire.server, mine; print(pairwire.server.__file__, mine.__name__)"
    (tmp_path / "mine.py").touch()
    code = "import benchmarks.checkout as c, subprocess; c.make_importable()\n"
    code += f"print(subprocess.check_output([sys.executable, '-S', '-c', {child!r}], cwd='/', text=True))"
    file, mine = run(code, tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), LIBRARIES])).split()
    assert Path(file).resolve() == ROOT / "server" / "__init__.py"
    assert mine == "mine"


def test_without_a_pythonpath_none_of_its_parts_is_the_working_directory(tmp_path: Path) -> None:
    code = "import os, benchmarks.checkout as c; c.make_importable(); print(os.environ['PYTHONPATH'])"
    (part,) = run(code, tmp_path).strip().split(os.pathsep)
    assert Path(part).parent == tmp_path
    assert (Path(part) / "pairwire" / "server").resolve() == ROOT / "server"


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    code = "import os, benchmarks.checkout as c; c.make_importable(); before = list(sys.path), dict(os.environ)\n"
    code += "c.make_importable(); print(before == (sys.path, dict(os.environ)))"
    assert run(code, tmp_path) == "True\n"
    assert len(list(tmp_path.glob("pairwire-checkout-*"))) == 1


def test_nothing_changes_where_it_is_installed() -> None:
    before = list(sys.path), dict(os.environ)
    make_importable()
    assert (sys.path, dict(os.environ)) == before
