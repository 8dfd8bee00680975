"""What this machine can do at most: measured right before and after what is compared with it.

Memory bandwidth of shared hosts changes within seconds, by half: a share of a bandwidth that was measured another time
says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TypeVar, get_args

from tusi import kernels
from tusi.bench.samples import Samples
from tusi.core import machine
from tusi.kernels.runtime import Unit

T = TypeVar("T")

READ_BYTES = 2**30
"""So much that no cache keeps some of it for the next round (benchmarks/bandwidth_by_size.py)."""
READ_ROUNDS = 6
"""Of one look at the bandwidth: about a fifth of a second."""
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """GMAC/s (1e9) of each arithmetic unit there is, all threads together."""

    by_unit: Mapping[Unit, Samples]

    def seconds(self, macs: Mapping[Unit, float]) -> float | None:
        """The least time these multiplications take; None if one needs a unit that is not there."""
        if any(unit not in self.by_unit for unit in macs):
            return None
        # The highest: what else runs on the machine can only lower what is measured, and a peak too low flatters.
        return sum(count / (self.by_unit[unit].high * 1e9) for unit, count in macs.items())


def measure_peaks(*, rounds: int = 15, seconds: float = 0.1) -> Peaks:
    """All units, one after the other."""
    found = {unit: kernels.unit_peaks(unit, rounds, seconds) for unit in UNITS}
    return Peaks(by_unit={unit: Samples.of(rates) for unit, rates in found.items() if rates})


def read_bandwidth() -> float:
    """GB/s (1e9) of memory right now. Raises MemoryError.

    Where memory is short it reads half of what is left: caches may then make it look faster, and shares of it lower.
    """
    available = machine.memory().available
    size = READ_BYTES if available is None else min(READ_BYTES, max(available // 2, 1))
    with machine.peak_unchanged():
        return median(kernels.read_bandwidths(size, READ_ROUNDS))


class Beside:
    """Collects the bandwidth measured around each of several runs."""

    def __init__(self, look: Callable[[], float] = read_bandwidth) -> None:
        self._look = look
        self.looks: list[tuple[float, float]] = []
        """Before and after each run."""

    @property
    def rates(self) -> list[float]:
        """The bandwidth of each run."""
        return [(before + after) / 2 for before, after in self.looks]

    @contextmanager
    def run(self) -> Iterator[None]:
        """Look before and after the body; the mean of both is that run's bandwidth."""
        before = self._look()
        yield
        self.looks.append((before, self._look()))
