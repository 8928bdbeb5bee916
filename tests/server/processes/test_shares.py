"""Who gets which CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairwire.server.cpus import usable_cpus
from pairwire.server.errors import ConfigInvalid
from pairwire.server.processes.shares import Share, divide, neighbourhood, share_out


@pytest.mark.parametrize(
    ("cpus", "count", "processes", "shares"),
    [
        pytest.param(4, 4, 2, [((0, 1), 2), ((2, 3), 2)], id="even"),
        pytest.param(5, 5, 2, [((0, 1, 2), 3), ((3, 4), 2)], id="the first gets what is left over"),
        pytest.param(6, 4, 2, [((0, 1, 2), 2), ((3, 4, 5), 2)], id="a quota is divided, and leaves room to move"),
        pytest.param(7, 5, 3, [((0, 1, 2), 2), ((3, 4), 2), ((5, 6), 1)], id="never more to count on than CPUs"),
        pytest.param(3, 3, 3, [((0,), 1), ((1,), 1), ((2,), 1)], id="one each"),
    ],
)
def test_cpus_and_quota_are_divided(
    cpus: int, count: int, processes: int, shares: list[tuple[tuple[int, ...], int]]
) -> None:
    assert share_out(list(range(cpus)), count, processes) == tuple(Share(*share) for share in shares)


def test_every_cpu_is_given_once_whatever_the_numbers() -> None:
    for cpus in range(1, 20):
        for count in range(1, cpus + 1):
            for processes in range(1, count + 1):
                shares = share_out(list(range(cpus)), count, processes)
                assert [cpu for share in shares for cpu in share.cpus] == list(range(cpus))
                assert sum(share.count for share in shares) == count
                assert all(1 <= share.count <= len(share.cpus) for share in shares)


def write_topology(root: Path, cpu: int, *, node: int, package: int, cache: int, core: int) -> None:
    home = root / f"cpu{cpu}"
    (home / f"node{node}").mkdir(parents=True)
    for name, number in (("topology/physical_package_id", package), ("topology/core_id", core)):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(f"{number}\n")
    (home / "cache/index3").mkdir(parents=True)
    (home / "cache/index3/id").write_text(f"{cache}\n")


def test_hyperthreads_and_cores_of_a_cache_are_neighbours(tmp_path: Path) -> None:
    for cpu in range(8):  # numbered as Linux does: the second threads of all cores come last
        core = cpu % 4
        write_topology(tmp_path, cpu, node=core // 2, package=0, cache=core // 2, core=core)
    order = sorted(range(8), key=lambda cpu: (*neighbourhood(cpu, tmp_path), cpu))
    assert order == [0, 4, 1, 5, 2, 6, 3, 7]
    assert [share.cpus for share in share_out(order, 8, 2)] == [(0, 4, 1, 5), (2, 6, 3, 7)]


def test_a_system_that_tells_nothing_of_its_cpus_is_no_obstacle(tmp_path: Path) -> None:
    assert neighbourhood(3, tmp_path) == (0, 0, 0, 0)


def test_more_processes_than_cpus_are_refused() -> None:
    cpus = usable_cpus()
    sentence = f"processes: {cpus + 1} are more than the {cpus} CPUs that can be used here; give at most {cpus}"
    with pytest.raises(ConfigInvalid, match=sentence):
        divide(cpus + 1)
    assert len(divide(cpus)) == cpus
