"""What the native kernels run on: processor features, instruction set, threads, memory bandwidth.

`configure()` runs once, when `tusi.kernels` is imported: it applies TUSI_ISA and TUSI_NUM_THREADS.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from tusi.core.env import TUSI_ISA, TUSI_NUM_THREADS
from tusi.core.errors import ConfigError
from tusi.kernels import _native

Unit = Literal["int8", "bf16", "fp32"]
"""Dot products of bytes, dot products of bfloat16 pairs, fused multiply-adds."""


def configure() -> None:
    """Apply the environment. Raises ConfigError if TUSI_ISA names what this machine lacks."""
    name = TUSI_ISA.get()
    if name is not None:
        if name not in supported_isas():
            raise ConfigError(
                f"TUSI_ISA={name} was asked for, but this processor, operating system or build does not have it. "
                f"It has {', '.join(supported_isas())}. Unset TUSI_ISA to use the best of them."
            )
        _native.set_active_isa(name)
    _native.set_num_threads(TUSI_NUM_THREADS.get() or physical_cores())


def cpu_features() -> dict[str, bool]:
    """Instruction-set features of the processor, and what registers the operating system saves (`os_saves_*`)."""
    return _native.cpu_features()


def isa() -> str:
    """The instruction set that kernels use where none is named: generic, avx2 or avx512."""
    return _native.active_isa()


def supported_isas() -> list[str]:
    """The instruction sets that can run here, slowest first."""
    return _native.supported_isas()


def num_threads() -> int:
    """Threads that a kernel runs on, the caller's included."""
    return _native.num_threads()


def set_num_threads(n: int) -> None:
    """Change it (1 to 1024); waits for a running kernel to end. Raises ValueError. Results do not depend on it."""
    _native.set_num_threads(n)


def read_bandwidths(n_bytes: int, rounds: int, *, isa: str | None = None) -> list[float]:
    """Read n_bytes of fresh memory `rounds` times on all threads; GB/s (1e9) of each. Raises MemoryError, ValueError.

    Choose n_bytes well above the last-level cache, or the cache is what is measured.
    """
    return _native.read_bandwidths(n_bytes, rounds, isa)


def unit_peaks(unit: Unit, rounds: int, seconds: float, *, isa: str | None = None) -> list[float]:
    """Multiply and add `rounds` times for about `seconds` on all threads; GMAC/s (1e9) of each. Raises ValueError.

    Nothing is loaded, so no matrix product is faster. Empty where this processor has no such unit.
    """
    return _native.unit_peaks(unit, rounds, seconds, isa)


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores that this process may run on; hardware threads that share a core count once."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    return len({_core_of(cpu, topology) for cpu in cpus})


def _core_of(cpu: int, topology: Path) -> str:
    # Some containers hide the topology; then each CPU counts as a core.
    try:
        return (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)
