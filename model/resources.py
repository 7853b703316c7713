"""How much of this machine the engine may use: cores and memory, as the cgroup allows them.

Knows no torch: a device's own memory is measured where the device is. Runs once, at start.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
OWN_CGROUPS = Path("/proc/self/cgroup")


def cpu_threads(cgroup: Path = CGROUP, own_cgroups: Path = OWN_CGROUPS) -> tuple[int, str]:
    """The cores that this process may run on, and why."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = affinity or os.cpu_count() or 1
    quotas = map(_cpu_quota, _own_folders(cgroup, own_cgroups, "cpu"))
    quota = min((found for found in quotas if found is not None), default=None)
    if quota is not None and quota < cores:
        return max(1, ceil(quota)), f"the cgroup allows {quota:g} of {cores} cores"
    return cores, f"the process may run on {cores} cores"


@dataclass(frozen=True, slots=True)
class Memory:
    left: int
    """Bytes that can still be taken without swapping or being killed."""
    reason: str
    own: bool
    """Whether others on this machine have no claim to it."""


def available_memory(
    cgroup: Path = CGROUP, meminfo: Path = MEMINFO, own_cgroups: Path = OWN_CGROUPS
) -> Memory:
    host = _meminfo_available(meminfo)
    limits = [_cgroup_memory_left(folder) for folder in _own_folders(cgroup, own_cgroups, "memory")]
    limit = min((found for found in limits if found is not None), default=None)
    if limit is not None and (host is None or limit < host):
        return Memory(limit, "left of the cgroup's limit", own=True)
    if host is None:
        return Memory(4 * 1024**3, "assumed, since the system does not say", own=False)
    return Memory(host, "available on this machine", own=False)


def give_back_freed() -> None:
    """Memory that malloc keeps though it was freed, to the system; nothing without glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"


def _cpu_quota(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    if len(fields) == 2 and fields[0] != "max":
        return int(fields[0]) / int(fields[1])
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _own_folders(cgroup: Path, own_cgroups: Path, controller: str) -> Iterator[Path]:
    """Of both versions. A container sees its own group as the root; other processes are in one
    below it, whose limit and those of all above it hold."""
    yield from (cgroup, cgroup / controller)
    for line in _read(own_cgroups).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        # Version 1 may name several that share a hierarchy: "cpu,cpuacct".
        if not controllers or controller in controllers.split(","):
            folder = (cgroup / controllers / path.lstrip("/")).resolve()
            yield from (above for above in (folder, *folder.parents) if cgroup in above.parents)


def _cgroup_memory_left(folder: Path) -> int | None:
    pairs = (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    )
    for limit_file, usage_file in pairs:
        limit, usage = _read(folder / limit_file).strip(), _read(folder / usage_file).strip()
        # Version 1 says "no limit" with a number near 2**63.
        if limit.isdigit() and usage.isdigit() and int(limit) < 2**60:
            # Page cache counts as used but is given back when it is needed.
            return max(int(limit) - int(usage) + _inactive_file(folder), 0)
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
