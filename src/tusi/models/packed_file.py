"""One file with a model's arrays exactly as they lie in memory, so that loading it is reading or mapping it.

    64 bytes     magic, version, where the index is and its SHA-256
    from 2 MiB   arrays, each at a multiple of 64 bytes
    at the end   the index, JSON: what was packed and, for each name, description and arrays

In: names, descriptions, arrays. Out: the same. Written beside and renamed, so that a file that is there is whole. All
that a damaged file can do on opening is a CheckpointError; bytes within the arrays are not checked on loading (`tusi
verify` checks files). Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tusi.core import machine
from tusi.core.errors import CheckpointError
from tusi.core.types import WeightMemory
from tusi.quant.memory import ALIGNMENT, HUGE_PAGE, empty_bytes

_MAGIC = b"TUSIPACK"
_VERSION = 1
_HEAD = struct.Struct("<8sQQQ32s")  # magic, version, index offset, index length, SHA-256 of the index
_MAX_INDEX_BYTES = 1 << 28
_DTYPES = ("uint8", "int8", "uint16", "float32", "int32")
_CHUNK = 32 * 2**20
_READERS = 4

Told = Callable[[int, int], None]
"""Called with the bytes read so far and all there are."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A weight or an array under a name. Offsets count from the first array of the file."""

    description: Mapping[str, Any]
    arrays: Mapping[str, tuple[str, tuple[int, ...], int]]


@dataclass(slots=True)
class PackedWriter:
    """Writes a file while its arrays are made; nothing is there under `path` until the end of the block."""

    path: Path
    about: Mapping[str, Any]
    _file: BinaryIO | None = None
    _entries: dict[str, Any] = field(default_factory=dict)

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def __enter__(self) -> PackedWriter:
        self._file = self._partial.open("wb")
        self._file.seek(HUGE_PAGE)
        return self

    def add(self, name: str, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Append arrays under a name."""
        assert self._file is not None
        assert name not in self._entries
        places = {}
        for key, array in arrays.items():
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            places[key] = [array.dtype.name, list(array.shape), self._file.tell() - HUGE_PAGE]
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._entries[name] = {"description": dict(description), "arrays": places}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        with self._file:
            if error is None:
                self._finish(self._file)
        if error is None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)

    def _finish(self, file: BinaryIO) -> None:
        index = json.dumps({"about": dict(self.about), "entries": self._entries}).encode()
        offset = file.tell()
        file.write(index)
        file.seek(0)
        file.write(_HEAD.pack(_MAGIC, _VERSION, offset, len(index), hashlib.sha256(index).digest()))
        file.flush()
        os.fsync(file.fileno())


class PackedFile:
    """A file opened and checked. Raises CheckpointError, also where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.num_bytes, index = self._read_index(file, size)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self.about: Mapping[str, Any] = dict(index["about"])
            self.entries = {str(name): self._entry(entry) for name, entry in dict(index["entries"]).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._broken(f"its index does not describe arrays ({error!r})") from error

    def load(self, memory: WeightMemory, told: Told | None = None) -> dict[str, dict[str, NDArray[Any]]]:
        """All arrays by name and field: views of one region. Raises MemoryError, CheckpointError."""
        try:
            region = self._mapped() if memory == "mmap" else self._read(told)
        except OSError as error:
            raise self._unreadable(error) from error
        return {
            name: {key: _view(region, *place) for key, place in entry.arrays.items()}
            for name, entry in self.entries.items()
        }

    def _mapped(self) -> NDArray[np.uint8]:
        with self.path.open("rb") as file:
            # Private and writable: kernels take writable arrays, and a page that were written would be a copy of ours.
            mapped = mmap.mmap(file.fileno(), HUGE_PAGE + self.num_bytes, access=mmap.ACCESS_COPY)
        with contextlib.suppress(OSError, AttributeError):  # not on every system; only a hint
            mapped.madvise(mmap.MADV_WILLNEED)
        return np.frombuffer(mapped, np.uint8)[HUGE_PAGE:]

    def _read(self, told: Told | None) -> NDArray[np.uint8]:
        region = empty_bytes(self.num_bytes)
        available = machine.memory().available
        # What was read gives way at once where both do not fit: the rest would be evicted before we come to it.
        drop = available is not None and self.num_bytes > available // 2
        view = memoryview(region)  # type: ignore[arg-type]
        with self.path.open("rb", buffering=0) as file, ThreadPoolExecutor(_READERS) as pool:
            descriptor = file.fileno()

            def read(begin: int) -> int:
                return self._read_chunk(descriptor, view[begin : begin + _CHUNK], HUGE_PAGE + begin, drop=drop)

            done = 0
            for count in pool.map(read, range(0, self.num_bytes, _CHUNK)):
                done += count
                if told is not None:
                    told(done, self.num_bytes)
        return region

    def _read_chunk(self, descriptor: int, into: memoryview, offset: int, *, drop: bool) -> int:
        done = 0
        while done < len(into):
            count = os.preadv(descriptor, [into[done:]], offset + done)
            if count == 0:
                raise self._broken(f"it ends {len(into) - done} bytes early; it has been cut")
            done += count
        if drop and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, offset, done, os.POSIX_FADV_DONTNEED)
        return done

    def _read_index(self, file: BinaryIO, size: int) -> tuple[int, dict[str, Any]]:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise self._broken(f"it has {size} bytes")
        magic, version, offset, length, digest = _HEAD.unpack(head)
        if magic != _MAGIC or version != _VERSION:
            raise self._broken("it does not begin as packed files of this version do")
        if not (offset >= HUGE_PAGE and length <= _MAX_INDEX_BYTES and offset + length == size):
            raise self._broken(f"its index should lie at {offset}..{offset + length}, and the file has {size} bytes")
        file.seek(offset)
        raw = file.read(length)
        if hashlib.sha256(raw).digest() != digest:
            raise self._broken("its index is damaged")
        index = json.loads(raw)
        if not isinstance(index, dict):
            raise self._broken("its index is no JSON object")
        return offset - HUGE_PAGE, index

    def _entry(self, raw: Mapping[str, Any]) -> Entry:
        places = {}
        for key, (dtype, shape, offset) in raw["arrays"].items():
            sizes = tuple(int(side) for side in shape)
            if dtype not in _DTYPES or any(side < 0 for side in sizes) or offset < 0 or offset % ALIGNMENT:
                raise ValueError(f"{dtype} {shape} at {offset}")
            if offset + math.prod(sizes) * np.dtype(dtype).itemsize > self.num_bytes:
                raise ValueError(f"{dtype} {shape} at {offset} goes beyond the end")
            places[str(key)] = (str(dtype), sizes, int(offset))
        return Entry(dict(raw["description"]), places)

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a sound packed file: {what}. Delete it, and make it again with `tusi pack`."
        )

    def _unreadable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.path} cannot be read ({error.strerror or error}). Check its permissions, or delete it and make it "
            "again with `tusi pack`."
        )


def _view(region: NDArray[np.uint8], dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    wanted = np.dtype(dtype)
    return region[offset : offset + math.prod(shape) * wanted.itemsize].view(wanted).reshape(shape)
