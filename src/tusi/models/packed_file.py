"""One file with a model's arrays exactly as they lie in memory, so that loading it is reading or mapping it.

    64 bytes     magic, version, where the index is and its SHA-256
    from 2 MiB   arrays, each at a multiple of 64 bytes
    at the end   the index, JSON: what was packed; for each name, description and arrays; CRC-32 of each 32 MiB

In: names, descriptions, arrays. Out: the same. Written beside and renamed, so that a file that is there is whole. All
that a damaged file can do is a CheckpointError: the index has its SHA-256, and the threads that read arrays check them
while they lie in the cache. Mapped arrays are not checked, because that would read all of them first; `find_damage`
does it for any file. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from tusi.models.piece_sums import PieceSums
from tusi.quant.memory import ALIGNMENT, HUGE_PAGE, empty_bytes

_MAGIC = b"TUSIPACK"
_VERSION = 1
_HEAD = struct.Struct("<8sQQQ32s")  # magic, version, index offset, index length, SHA-256 of the index
_MAX_INDEX_BYTES = 1 << 28
_DTYPES = ("uint8", "int8", "uint16", "float32", "int32")
_PIECE = 32 * 2**20
_STEP = 2**20
"""Bytes that are read and then summed while they are still in the second-level cache."""
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
    _sums: PieceSums = field(default_factory=lambda: PieceSums(_PIECE))
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
            self._write(bytes(-self._file.tell() % ALIGNMENT))
            places[key] = [array.dtype.name, list(array.shape), self._file.tell() - HUGE_PAGE]
            self._write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
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

    def _write(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        self._file.write(data)
        self._sums.update(data)

    def _finish(self, file: BinaryIO) -> None:
        sums = {"piece_bytes": self._sums.piece_bytes, "crc32": self._sums.end()}
        index = json.dumps({"about": dict(self.about), "entries": self._entries, "sums": sums}).encode()
        offset = file.tell()
        file.write(index)
        file.seek(0)
        file.write(_HEAD.pack(_MAGIC, _VERSION, offset, len(index), hashlib.sha256(index).digest()))
        file.flush()
        os.fsync(file.fileno())


class PackedFile:
    """A file opened and its index checked. Raises CheckpointError, also where it cannot be read.

    has_sums: False for a file of an earlier version, whose arrays cannot be checked; it is not to be used.
    """

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
            self._piece_bytes, self._sums = self._read_sums(index.get("sums"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._broken(f"its index does not describe arrays ({error!r})") from error

    @property
    def has_sums(self) -> bool:
        return self._sums is not None

    def find_damage(self, told: Told | None = None) -> list[str]:
        """Names of what lies in pieces that are not as they were written. Reads all, keeps nothing.

        Raises CheckpointError for a file without sums, or one that cannot be read to its end.
        """
        if self._sums is None:
            raise self._broken("it has no checksums; an earlier version wrote it")
        try:
            damaged = [number for number, is_sound in self._each_piece(None, told) if not is_sound]
        except OSError as error:
            raise self._unreadable(error) from error
        return self._names_in(damaged)

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
        damaged = [number for number, is_sound in self._each_piece(region, told) if not is_sound]
        if damaged:
            names = self._names_in(damaged)
            raise self._broken(
                f"{len(damaged)} of {self._num_pieces} pieces are not what was written (they hold {names[0]}"
                f"{f' and {len(names) - 1} more' if len(names) > 1 else ''}); the disk or a copy has changed them"
            )
        return region

    @property
    def _num_pieces(self) -> int:
        return -(-self.num_bytes // self._piece_bytes)

    def _each_piece(self, region: NDArray[np.uint8] | None, told: Told | None) -> Iterator[tuple[int, bool]]:
        """Numbers of all pieces, in order, and whether their sums are right. region: where they are read to, if so."""
        available = machine.memory().available
        # What was read gives way at once where both do not fit: the rest would be evicted before we come to it.
        drop = available is not None and self.num_bytes > available // 2
        view = None if region is None else memoryview(region)  # type: ignore[arg-type]
        with self.path.open("rb", buffering=0) as file, ThreadPoolExecutor(_READERS) as pool:
            descriptor = file.fileno()

            def read(number: int) -> bool:
                begin = number * self._piece_bytes
                size = min(self._piece_bytes, self.num_bytes - begin)
                into = None if view is None else view[begin : begin + size]
                total = self._read_piece(descriptor, HUGE_PAGE + begin, size, into)
                if drop and hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(descriptor, HUGE_PAGE + begin, size, os.POSIX_FADV_DONTNEED)
                return self._sums is None or total == self._sums[number]

            for number, is_sound in enumerate(pool.map(read, range(self._num_pieces))):
                if told is not None:
                    told(min((number + 1) * self._piece_bytes, self.num_bytes), self.num_bytes)
                yield number, is_sound

    def _read_piece(self, descriptor: int, offset: int, size: int, into: memoryview | None) -> int:
        """The sum of `size` bytes, which are kept in `into`."""
        scratch = memoryview(bytearray(_STEP)) if into is None else None
        done = total = 0
        while done < size:
            wanted = min(_STEP, size - done)
            step = into[done : done + wanted] if into is not None else scratch[:wanted]  # type: ignore[index]
            count = os.preadv(descriptor, [step], offset + done)
            if count == 0:
                raise self._broken(f"it ends {size - done} bytes early; it has been cut")
            total = zlib.crc32(step[:count], total)
            done += count
        return total

    def _names_in(self, pieces: Iterable[int]) -> list[str]:
        """What has bytes in these pieces; padding between arrays belongs to nobody, and counts as such."""
        damaged = set(pieces)
        names = [
            name
            for name, entry in self.entries.items()
            if any(
                not damaged.isdisjoint(range(begin // self._piece_bytes, (end - 1) // self._piece_bytes + 1))
                for begin, end in map(_extent, entry.arrays.values())
                if end > begin
            )
        ]
        return names or (["padding"] if damaged else [])

    def _read_sums(self, raw: Mapping[str, Any] | None) -> tuple[int, tuple[int, ...] | None]:
        if raw is None:
            return _PIECE, None
        piece_bytes, sums = int(raw["piece_bytes"]), tuple(int(one) for one in raw["crc32"])
        if piece_bytes < 1 or len(sums) != -(-self.num_bytes // piece_bytes):
            raise ValueError(f"{len(sums)} sums of pieces of {piece_bytes} bytes, for {self.num_bytes} bytes")
        return piece_bytes, sums

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


def _extent(place: tuple[str, tuple[int, ...], int]) -> tuple[int, int]:
    """Where an array begins and ends."""
    dtype, shape, offset = place
    return offset, offset + math.prod(shape) * np.dtype(dtype).itemsize


def _view(region: NDArray[np.uint8], dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    begin, end = _extent((dtype, shape, offset))
    return region[begin:end].view(np.dtype(dtype)).reshape(shape)
