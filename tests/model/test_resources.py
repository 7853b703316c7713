import os
from pathlib import Path

import pytest

from model.resources import Memory, available_memory, cpu_threads, give_back_freed

NOWHERE = Path("/nowhere")
CORES = len(os.sched_getaffinity(0))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(("quota", "expected"), [("50000", 1), ("100000", 1), ("max", CORES)])
def test_threads_follow_the_cgroups_quota(tmp_path: Path, quota: str, expected: int) -> None:
    threads, reason = cpu_threads(write(tmp_path, cpu_dot_max=f"{quota} 100000\n"), NOWHERE)
    assert threads == min(expected, CORES)
    assert reason


def test_threads_follow_a_quota_of_cgroup_version_1(tmp_path: Path) -> None:
    folder = write(tmp_path, cpu__cpu_dot_cfs_quota_us="50000", cpu__cpu_dot_cfs_period_us="100000")
    assert cpu_threads(folder, NOWHERE)[0] == 1


def test_a_quota_above_the_cores_changes_nothing(tmp_path: Path) -> None:
    assert cpu_threads(write(tmp_path, cpu_dot_max="99900000 100000"), NOWHERE)[0] == CORES


def test_threads_are_the_cores_where_there_is_no_cgroup(tmp_path: Path) -> None:
    assert cpu_threads(tmp_path, NOWHERE)[0] == CORES


@pytest.mark.parametrize("version", [1, 2])
def test_threads_follow_the_quota_of_any_group_above(tmp_path: Path, version: int) -> None:
    if version == 2:
        write(tmp_path, a__cpu_dot_max="100000 100000", a__b__cpu_dot_max="max 100000")
        own = "0::/a/b\n"
    else:
        (tmp_path / "cpu,cpuacct" / "a").mkdir(parents=True)
        write(tmp_path / "cpu,cpuacct" / "a", cpu_dot_cfs_quota_us="100000")
        write(tmp_path / "cpu,cpuacct" / "a", cpu_dot_cfs_period_us="100000")
        own = "7:cpu,cpuacct:/a/b\n4:memory:/x\n"
    write(tmp_path, own=own)
    assert cpu_threads(tmp_path, tmp_path / "own")[0] == 1


def meminfo(tmp_path: Path) -> Path:
    write(tmp_path, meminfo="MemTotal:  4000 kB\nMemAvailable:   2000 kB\n")
    return tmp_path / "meminfo"


def test_memory_is_what_the_cgroup_has_left_with_its_page_cache(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        memory_dot_max="1000000",
        memory_dot_current="600000",
        memory_dot_stat="anon 1\ninactive_file 50000\n",
    )
    assert available_memory(folder, meminfo(tmp_path), NOWHERE) == Memory(
        450000, "left of the cgroup's limit", own=True
    )


def test_memory_is_the_machines_where_the_cgroup_has_no_limit(tmp_path: Path) -> None:
    folder = write(tmp_path, memory_dot_max="max", memory_dot_current="1")
    assert available_memory(folder, meminfo(tmp_path), NOWHERE).left == 2000 * 1024


def test_a_limit_above_the_machines_memory_does_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path, memory_dot_max=str(2**40), memory_dot_current="1")
    assert available_memory(folder, meminfo(tmp_path), NOWHERE).left == 2000 * 1024


def test_the_unlimited_number_of_cgroup_version_1_is_no_limit(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        memory__memory_dot_limit_in_bytes="9223372036854771712",
        memory__memory_dot_usage_in_bytes="1",
    )
    assert available_memory(folder, meminfo(tmp_path), NOWHERE).left == 2000 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_group_above_the_own_one_holds(tmp_path: Path, version: int) -> None:
    """As of a service of systemd; a container sees its own group as the root."""
    if version == 2:
        write(tmp_path, a__memory_dot_max="700", a__memory_dot_current="100")
        write(tmp_path, a__b__memory_dot_max="max", a__b__memory_dot_current="50")
        own = "0::/a/b\n"
    else:
        write(tmp_path, memory__a__memory_dot_limit_in_bytes="700")
        write(tmp_path, memory__a__memory_dot_usage_in_bytes="100")
        own = "7:cpu:/x\n4:memory:/a/b\n"
    write(tmp_path, own=own)
    memory = available_memory(tmp_path, meminfo(tmp_path), tmp_path / "own")
    assert (memory.left, memory.own) == (600, True)


def test_freed_memory_goes_back_to_the_system() -> None:
    """Pieces too small for a mapping of their own, one of which ends the heap."""
    kept = []
    for _ in range(3000):
        kept += [bytearray(32 * 1024), bytearray(1024)]
    held = _anonymous_kb()
    kept = kept[1::2]
    give_back_freed()
    assert held - _anonymous_kb() > 0.8 * 3000 * 32
    assert len(kept) == 3000


def _anonymous_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
