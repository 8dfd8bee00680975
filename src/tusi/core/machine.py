"""What this machine has: processor, memory, huge pages. Standard library only; Linux in full, others in part.

Out: values, None where the system does not tell. Nothing here is cached: memory changes while one looks.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Of the many flags of /proc/cpuinfo, those that kernels of this kind care about.
_FEATURES = (
    ("avx2", "avx2"),
    ("fma", "fma"),
    ("f16c", "f16c"),
    ("avx_vnni", "avx-vnni"),
    ("avx512f", "avx512f"),
    ("avx512bw", "avx512bw"),
    ("avx512_vnni", "avx512-vnni"),
    ("avx512_bf16", "avx512-bf16"),
    ("amx_int8", "amx-int8"),
    ("amx_bf16", "amx-bf16"),
    ("asimd", "neon"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
)

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """model: the maker's name; features: those that numeric kernels use; logical_cores: those this process may use."""

    model: str
    architecture: str
    features: tuple[str, ...]
    logical_cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes. available: what a new program can have without swapping, within the limit of this process's container."""

    total: int | None
    available: int | None
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes of this process that lie in memory: now, and at most since it began."""

    resident: int | None
    peak: int | None


def process_memory() -> ProcessMemory:
    """What this process takes. The peak is the system's own, so nothing between two looks is missed."""
    lines = dict(line.partition(":")[::2] for line in _read(_PROC / "self" / "status").splitlines())
    kilobytes = [_int((lines.get(key, "").split() or [""])[0]) for key in ("VmRSS", "VmHWM")]
    resident, peak = (None if value is None else value * 1024 for value in kilobytes)
    peak = _peak_of_rusage() if peak is None else max(peak, _earlier_peak)
    return ProcessMemory(resident=resident, peak=peak)


_earlier_peak = 0  # of the process, from before the system was last told to forget it


@contextmanager
def peak_unchanged() -> Iterator[None]:
    """What the body takes and gives back does not count in process_memory().peak. Only Linux can; elsewhere it does."""
    global _earlier_peak
    before = process_memory().peak
    try:
        yield
    finally:
        with suppress(OSError):
            (_PROC / "self" / "clear_refs").write_text("5")
            _earlier_peak = max(_earlier_peak, before or 0)


def processor() -> Processor:
    """The processor of this machine."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    model = info.get("model name") or info.get("Processor") or _sysctl("machdep.cpu.brand_string")
    return Processor(
        model=model or platform.processor() or "unknown",
        architecture=platform.machine(),
        features=tuple(name for flag, name in _FEATURES if flag in flags),
        logical_cores=usable_cores(),
    )


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> Memory:
    """Memory of this machine as this process may use it."""
    info = _meminfo()
    total = info.get("MemTotal") or _int(_sysctl("hw.memsize"))
    # No cheap figure for free memory outside of Linux: the total is then the best upper bound.
    available = info.get("MemAvailable", total)
    limit, used = _cgroup_limit()
    if total is not None and limit is not None and limit >= total:
        limit = None
    if limit is not None and available is not None:
        available = min(available, max(0, limit - used))
    return Memory(total=total, available=available, limit=limit)


def huge_pages() -> str | None:
    """The kernel's policy for transparent huge pages: always, madvise or never."""
    text = _read(_HUGE_PAGES)
    return text.partition("[")[2].partition("]")[0] or None


def _peak_of_rusage() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if platform.system() == "Darwin" else used * 1024


def _cpuinfo() -> dict[str, str]:
    first, _, _ = _read(_PROC / "cpuinfo").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _meminfo() -> dict[str, int]:
    values: dict[str, int] = {}
    for line in _read(_PROC / "meminfo").splitlines():
        key, _, rest = line.partition(":")
        number = _int(rest.split()[0]) if rest.split() else None
        if number is not None:
            values[key] = number * 1024
    return values


def _cgroup_limit() -> tuple[int | None, int]:
    """Limit and present use of the tightest control group that holds this process (version 2, else version 1)."""
    found: list[tuple[int, int]] = []
    for line in _read(_PROC / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            found += _limits_upwards(_CGROUP, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            found += _limits_upwards(_CGROUP / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")
    if not found:
        return None, 0
    return min(found, key=lambda pair: pair[0] - pair[1])


def _limits_upwards(root: Path, path: str, limit_name: str, used_name: str) -> list[tuple[int, int]]:
    found = []
    folder = root / path.lstrip("/")
    while folder == root or root in folder.parents:
        limit = _int(_read(folder / limit_name))
        if limit is not None:
            found.append((limit, (_int(_read(folder / used_name)) or 0) - _reclaimable(folder)))
        folder = folder.parent
    return found


def _reclaimable(folder: Path) -> int:
    """Page cache that the group's use counts but that gives way to programs."""
    for line in _read(folder / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key in ("inactive_file", "total_inactive_file"):
            return _int(value) or 0
    return 0


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
