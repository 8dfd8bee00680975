"""Where weights lie: anonymous memory of our own, aligned, in huge pages where the system grants them.

In: shape and dtype. Out: an uninitialised array that nothing else shares. Anonymous memory cannot be cut under our feet
as a mapped file can, and the system does not drop it as it drops the page cache; huge pages spare a token's gigabytes
of weights one address lookup each 4 KiB. Knows nothing of formats.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector that a kernel loads."""
HUGE_PAGE = 2 * 2**20
"""Bytes; arrays from this size on begin at a multiple of it."""


def empty_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As np.empty, aligned to ALIGNMENT, and from HUGE_PAGE bytes on in huge pages. Raises MemoryError."""
    item = np.dtype(dtype)
    nbytes = math.prod(shape) * item.itemsize
    return empty_bytes(nbytes).view(item).reshape(shape)


def empty_bytes(nbytes: int) -> NDArray[np.uint8]:
    """That many bytes; small ones from NumPy, large ones from the system, which fills them when first touched."""
    if nbytes < HUGE_PAGE:
        return _from_line(np.empty(nbytes + ALIGNMENT, np.uint8), nbytes)
    try:
        # The default would be shared memory, which counts against another limit and is huge by another setting.
        region = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes for weights were refused ({error.strerror})") from error
    memory = np.frombuffer(region, np.uint8)
    skip = -memory.ctypes.data % HUGE_PAGE
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Whole pages only: a thousand arrays that end in the middle of a huge page would waste a gigabyte.
        with contextlib.suppress(OSError):  # a kernel without them; small pages do
            region.madvise(mmap.MADV_HUGEPAGE, skip, nbytes // HUGE_PAGE * HUGE_PAGE)
    return memory[skip : skip + nbytes]


def zeros_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As np.zeros, aligned to ALIGNMENT: memory is committed as it is used, page by page."""
    item = np.dtype(dtype)
    nbytes = math.prod(shape) * item.itemsize
    return _from_line(np.zeros(nbytes + ALIGNMENT, np.uint8), nbytes).view(item).reshape(shape)


def _from_line(memory: NDArray[np.uint8], nbytes: int) -> NDArray[np.uint8]:
    """So many bytes of memory that has ALIGNMENT more, from the first multiple of it on."""
    skip = -memory.ctypes.data % ALIGNMENT
    return memory[skip : skip + nbytes]
