"""How much of this machine the engine may use: cores and memory, as the cgroup allows them.

Knows no torch: a device's own memory is measured where the device is. Runs once, at start.
"""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def cpu_threads(cgroup: Path = CGROUP) -> tuple[int, str]:
    """The cores that this process may run on, and why."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = affinity or os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    if quota is not None and quota < cores:
        return max(1, ceil(quota)), f"the cgroup allows {quota:g} of {cores} cores"
    return cores, f"the process may run on {cores} cores"


def available_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> tuple[int, str]:
    """Bytes that can still be taken without swapping or being killed, and why."""
    host = _meminfo_available(meminfo)
    limit = _cgroup_memory_left(cgroup)
    if limit is not None and (host is None or limit < host):
        return limit, "left of the cgroup's limit"
    if host is None:
        return 4 * 1024**3, "assumed, since the system does not say"
    return host, "available on this machine"


def _cpu_quota(cgroup: Path) -> float | None:
    fields = _read(cgroup / "cpu.max").split()
    if len(fields) == 2 and fields[0] != "max":
        return int(fields[0]) / int(fields[1])
    quota = _read(cgroup / "cpu" / "cpu.cfs_quota_us").strip()
    period = _read(cgroup / "cpu" / "cpu.cfs_period_us").strip()
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _cgroup_memory_left(cgroup: Path) -> int | None:
    pairs = (
        (cgroup / "memory.max", cgroup / "memory.current"),
        (
            cgroup / "memory" / "memory.limit_in_bytes",
            cgroup / "memory" / "memory.usage_in_bytes",
        ),
    )
    for limit_file, usage_file in pairs:
        limit, usage = _read(limit_file).strip(), _read(usage_file).strip()
        # Version 1 says "no limit" with a number near 2**63.
        if limit.isdigit() and usage.isdigit() and int(limit) < 2**60:
            # Page cache counts as used but is given back when it is needed.
            return max(int(limit) - int(usage) + _inactive_file(limit_file.parent), 0)
    return None


def _inactive_file(folder: Path) -> int:
    return sum(int(v) for k, v in _pairs(folder / "memory.stat") if k == "inactive_file")


def _meminfo_available(meminfo: Path) -> int | None:
    for key, value in _pairs(meminfo):
        if key == "MemAvailable:":
            return int(value) * 1024
    return None


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in _read(path).splitlines():
        fields = line.split()
        if len(fields) >= 2:
            yield fields[0], fields[1]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
