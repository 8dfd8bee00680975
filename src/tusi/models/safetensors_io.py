"""Reading and writing one safetensors file: header checked to the last byte, tensors read one by one, writes atomic.

A file is 8 bytes of header length (little endian), a JSON header, then the data. In: a path; out: arrays (bfloat16 as
uint16 bits). Everything a damaged or hostile file can do ends in a CheckpointError. Tensors are read, not mapped: a
mapped file that someone cuts while it is in use ends the process, and its pages count as ours until the system takes
them back. Knows nothing of models.

Ours rather than the `safetensors` package because NumPy has no bfloat16 and that package then refuses, and because its
errors do not say what to do.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import CheckpointError

Array = NDArray[Any]

# The limit of the safetensors package itself.
MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 8

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
"""The dtypes that weights come in. uint16 means bfloat16 bits throughout the package; true U16 files are refused."""

_READABLE = {**DTYPES, "I32": np.dtype("<i4"), "I64": np.dtype("<i8")}
"""Those, and what packed codes and their shapes are stored in."""

_ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """An open file; `tensors` lists what it holds. Raises CheckpointError when opened on anything unsound."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                header = _read_header(file.read(8), file, size, path)
            self._data_start = size - header.data_size
            self.tensors = header.tensors
            self.metadata = header.metadata
        except OSError as error:
            raise _unreadable(path, error) from error

    def read(self, name: str) -> Array:
        """The tensor, read into an array of its own; only for dtypes in DTYPES, I32 and I64."""
        info = self.tensors[name]
        out = np.empty(info.shape, _READABLE[info.dtype])
        try:
            with self.path.open("rb") as file:
                file.seek(self._data_start + info.begin)
                count = file.readinto(out.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if count != out.nbytes:
            raise _broken(self.path, f"tensor {name!r} has {count} bytes left of {out.nbytes}; the file has been cut")
        return out


@dataclass(frozen=True, slots=True)
class _Header:
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_size: int


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read ({error.strerror or error}); it is part of the checkpoint. "
        "Check the path and its permissions, or download it again."
    )


def _broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a sound safetensors file: {what}. It may be cut short, damaged or not what its name says. "
        "Download it again (`tusi pull` checks what it gets)."
    )


def _read_header(prefix: bytes, file: Any, size: int, path: Path) -> _Header:
    if len(prefix) < 8:
        raise _broken(path, f"it has {size} bytes and a header alone takes 8")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES or length > size - 8:
        raise _broken(path, f"its header claims {length} bytes, the file has {size - 8} and headers are at most 100 MB")
    try:
        raw = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not valid JSON ({error})") from error
    if not isinstance(raw, dict):
        raise _broken(path, f"its header is {type(raw).__name__}, not an object")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "__metadata__ is not an object of strings")
    data_size = size - 8 - length
    tensors = {name: _tensor_info(name, entry, path) for name, entry in raw.items()}
    _check_layout(tensors, data_size, path)
    return _Header(tensors, metadata, data_size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("a name occurs twice")
    return unique


def _tensor_info(name: str, entry: Any, path: Path) -> TensorInfo:
    if not isinstance(entry, dict):
        raise _broken(path, f"the entry of tensor {name!r} is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZES:
        raise _broken(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _whole_numbers(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _broken(path, f"tensor {name!r} has the shape {shape!r}")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise _broken(path, f"tensor {name!r} has the data_offsets {offsets!r}")
    begin, end = offsets
    need = math.prod(shape) * _ITEM_SIZES[dtype]
    if end - begin != need:
        raise _broken(path, f"tensor {name!r} takes {need} bytes by its shape {shape}, {end - begin} by its offsets")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(tensors: Mapping[str, TensorInfo], data_size: int, path: Path) -> None:
    """Tensors must fill the data without gap or overlap, as the format demands."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            what = "overlaps the tensor before it" if info.begin < position else "leaves a gap before it"
            raise _broken(path, f"tensor {name!r} at byte {info.begin} {what} (expected {position})")
        position = info.end
    if position != data_size:
        raise _broken(path, f"its tensors take {position} bytes of data and the file has {data_size}")


@dataclass(frozen=True, slots=True)
class TensorToWrite:
    """Name, safetensors dtype and shape; the data come later, in the same order."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_SIZES[self.dtype]


def write_safetensors(path: Path, tensors: list[TensorToWrite], data: Iterator[Array]) -> None:
    """Write a file, one tensor in memory at a time: first beside its place, then renamed into it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        offsets = [position, position + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        position = offsets[1]
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with atomic_write(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, array in zip(tensors, data, strict=True):
            file.write(np.ascontiguousarray(array).data)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Any]:
    """A binary file that takes `path` only when it is whole and on disk; on any error nothing is left behind."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
