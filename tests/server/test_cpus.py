import os
from pathlib import Path

import pytest

from pairwire.server import cpus
from pairwire.server.cpus import cgroup_quota, limit_cpus, usable_cpus


def _tree(root: Path, files: dict[str, str], membership: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    of_process = root / "proc-self-cgroup"
    of_process.write_text(membership)
    return of_process


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        pytest.param({}, "0::/\n", None, id="no files, no limit"),
        pytest.param({"cpu.max": "max 100000\n"}, "0::/\n", None, id="v2 without limit"),
        pytest.param({"cpu.max": "250000 100000\n"}, "0::/\n", 2.5, id="v2 in a container"),
        pytest.param(
            {"app/cpu.max": "400000 100000", "app/pod/cpu.max": "max 100000"}, "0::/app/pod\n", 4.0, id="v2 of a parent"
        ),
        pytest.param({"cpu.max": "100000 100000"}, "0::/not/here\n", 1.0, id="v2 whose path is the host's"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
            "4:cpu:/\n",
            1.5,
            id="v1 in a container",
        ),
        pytest.param(
            {"cpu,cpuacct/box/cpu.cfs_quota_us": "300000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/box\n2:memory:/other\n",
            3.0,
            id="v1 with joined controllers",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", None, id="v1 without limit"
        ),
        pytest.param({"cpu.max": "nonsense"}, "0::/\n", None, id="what is not a number limits nothing"),
    ],
)
def test_quota_of_the_process(tmp_path: Path, files: dict[str, str], membership: str, quota: float | None) -> None:
    assert cgroup_quota(tmp_path, _tree(tmp_path, files, membership)) == quota


def test_no_cgroups_at_all_limit_nothing(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "none", tmp_path / "nothing") is None


def test_a_fraction_of_a_cpu_counts_as_one(tmp_path: Path) -> None:
    of_process = _tree(tmp_path, {"cpu.max": "50000 100000"}, "0::/\n")
    assert usable_cpus(cgroup_root=tmp_path, cgroup_of_process=of_process) == 1


def test_affinity_is_the_most_there_can_be(tmp_path: Path) -> None:
    of_process = _tree(tmp_path, {"cpu.max": "100000000 100000"}, "0::/\n")
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cpus(cgroup_root=tmp_path, cgroup_of_process=of_process) == expected


def test_this_machine_has_at_least_one() -> None:
    assert usable_cpus() >= 1


def test_a_share_counts_where_affinity_and_quota_allow_more(monkeypatch: pytest.MonkeyPatch) -> None:
    before = usable_cpus()
    monkeypatch.setattr(cpus, "_share", None)  # what the test sets is taken back at its end
    limit_cpus(1)
    assert usable_cpus() == 1
    limit_cpus(before + 1)
    assert usable_cpus() == before
