"""Weights' memory: aligned, writable, unshared, given back, in huge pages where the kernel offers them."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from tusi.core import machine
from tusi.quant.memory import ALIGNMENT, HUGE_PAGE, empty_array, empty_bytes


@pytest.mark.parametrize("shape", [(1,), (3, 5), (64, 1001), (HUGE_PAGE // 4,), (700, 1031)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_an_array_is_aligned_and_ours(shape: tuple[int, ...], dtype: type) -> None:
    array = empty_array(shape, dtype)
    assert (array.shape, array.dtype, array.flags.c_contiguous, array.flags.writeable) == (shape, dtype, True, True)
    assert array.ctypes.data % (HUGE_PAGE if array.nbytes >= HUGE_PAGE else ALIGNMENT) == 0
    array[...] = 7
    assert empty_array(shape, dtype) is not array
    assert (array == 7).all()


def test_an_array_without_values() -> None:
    assert empty_array((0, 7), np.float32).shape == (0, 7)


def test_large_memory_is_given_back() -> None:
    before = mapped_kib()
    held = empty_bytes(64 * HUGE_PAGE)
    assert mapped_kib() > before + 100_000
    del held
    gc.collect()
    assert mapped_kib() < before + 100_000


def test_large_memory_asks_for_huge_pages() -> None:
    if machine.huge_pages() not in ("madvise", "always"):
        pytest.skip("this kernel gives no huge pages")
    held = empty_bytes(16 * HUGE_PAGE + 5)
    held[:] = 1
    assert "hg" in flags_of_region(held.ctypes.data)
    assert "hg" not in flags_of_region(held.ctypes.data + 16 * HUGE_PAGE)


def test_memory_that_the_system_refuses() -> None:
    with pytest.raises(MemoryError, match="bytes for weights were refused"):
        empty_bytes(1 << 60)


def mapped_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmSize:")[2].split()[0])


def flags_of_region(address: int) -> list[str]:
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name = line.split()[0]
        if "-" in name and not name.endswith(":"):
            begin, _, end = name.partition("-")
            inside = int(begin, 16) <= address < int(end, 16)
        elif inside and name == "VmFlags:":
            return line.split()[1:]
    return []
