"""A checkpoint packed for this runtime: a file beside it from which the model starts in seconds.

Packing converts one tensor at a time, so it takes little memory; loading reads the file (or maps it) and converts
nothing. A packed file belongs to one layout of the weights and to the very files it was made from; one that is out of
date is not used, and a log line says so.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import Activations, WeightFormat, WeightFormatChoice, WeightMemory
from tusi.models.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.config_io import load_config
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.packed_file import PackedFile, PackedWriter
from tusi.models.parameters import Parameters, Progress, choose_format
from tusi.quant.rebuild import describe, rebuild
from tusi.quant.weights import DEFAULT_GROUP_SIZE, F32, LAYOUT_VERSION, StackedWeight, Weight, with_activations

W = TypeVar("W", Weight, StackedWeight)

logger = logging.getLogger(__name__)

_NO_SUMS = "no checksums, which an earlier version did not write"
_WEIGHT_SUFFIXES = (".safetensors", ".packed", ".gguf", ".bin", ".pdparams")


def packed_path(folder: Path, weight_format: WeightFormat) -> Path:
    """Where the packed file of a checkpoint folder lies, if there is one."""
    return folder / f"tusi-{weight_format}.packed"


def pack_checkpoint(
    folder: Path,
    dtype: WeightFormatChoice,
    *,
    out: Path | None = None,
    group_size: int = DEFAULT_GROUP_SIZE,
    progress: Progress | None = None,
) -> Path:
    """Write the packed file; returns its path. out: a new folder that needs the checkpoint no more; None: beside it.

    Raises CheckpointError, ConfigError (also for a folder that is not empty), OSError (no space, no permission).
    """
    checkpoint = Checkpoint(folder)
    weight_format = choose_format(checkpoint.config, dtype)
    if out is not None:
        _copy_other_files(folder, out)
    path = packed_path(out or folder, weight_format)
    about = {
        "layout": LAYOUT_VERSION,
        "format": weight_format,
        "source": None if out is not None else _fingerprint(folder),
    }
    params = Parameters(checkpoint, weight_format, group_size=group_size, progress=progress)
    write_packed(path, about, checkpoint.config, params)
    return path


def write_packed(path: Path, about: Mapping[str, Any], config: Ernie4_5_VLMoeConfig, params: Parameters) -> None:
    """Write what `params` hands out, wherever it takes it from, one weight at a time."""
    with PackedWriter(path, about) as writer:
        packing = _PackingParameters(writer, params)
        Ernie4_5_VLMoeForConditionalGeneration.from_parameters(config, about["format"], packing)


def find_packed(folder: Path, dtype: WeightFormatChoice) -> PackedFile | None:
    """The packed file to load for `dtype`, None if there is none that is up to date.

    Raises CheckpointError for one that is damaged, ConfigError for a folder that holds packed files alone and none of
    the wanted format.
    """
    found = {path.name: path for path in packed_files(folder)}
    if not found:
        return None
    if not _has_checkpoint(folder):
        return _packed_alone(folder, found, dtype)
    path = packed_path(folder, choose_format(load_config(folder), dtype))
    if path.name not in found:
        return None
    packed = PackedFile(path)
    if (reason := _out_of_date(packed, folder)) is None:
        return packed
    logger.warning("%s is not used: %s. Make it again with `tusi pack`.", path, reason)
    return None


def load_packed(
    folder: Path,
    packed: PackedFile,
    *,
    memory: WeightMemory = "anonymous",
    activations: Activations | None = None,
    progress: Progress | None = None,
) -> Ernie4_5_VLMoeForConditionalGeneration:
    """The model out of a packed file. activations None: as they were when it was packed.

    Raises CheckpointError, MemoryError.
    """
    config = load_config(folder)
    weight_format: WeightFormat = packed.about["format"]
    told = None if progress is None else _told(progress, packed.path.name)
    params = _PackedParameters(packed, packed.load(memory, told), config, activations)
    return Ernie4_5_VLMoeForConditionalGeneration.from_parameters(config, weight_format, params)


def packed_files(folder: Path) -> list[Path]:
    """All packed files of a folder."""
    return sorted(folder.glob("tusi-*.packed"))


def check_packed(path: Path, told: Callable[[int, int], None] | None = None) -> str | None:
    """What is wrong with a packed file, from its first byte to its last; None if nothing is."""
    try:
        damaged = PackedFile(path).find_damage(told)
    except CheckpointError as error:
        return f"cannot be used: {error}"
    if not damaged:
        return None
    shown = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
    return f"is damaged where {shown} lie. Delete it, and make it again with `tusi pack`."


def _told(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)


def _has_checkpoint(folder: Path) -> bool:
    return (folder / SINGLE_FILE).exists() or (folder / INDEX_FILE).exists()


def _packed_alone(folder: Path, found: Mapping[str, Path], dtype: WeightFormatChoice) -> PackedFile:
    if dtype == "auto" and len(found) == 1:
        path = next(iter(found.values()))
    elif dtype != "auto" and packed_path(folder, dtype).name in found:
        path = packed_path(folder, dtype)
    else:
        raise ConfigError(
            f"{folder} holds packed weights alone ({', '.join(found)}), and dtype {dtype} was asked for. Ask for the "
            "format of one of them."
        )
    packed = PackedFile(path)
    if packed.about.get("layout") != LAYOUT_VERSION:
        raise CheckpointError(
            f"{path} is packed in layout {packed.about.get('layout')}, this version reads {LAYOUT_VERSION}. Pack the "
            "checkpoint that it was made from again."
        )
    if not packed.has_sums:
        raise CheckpointError(f"{path} has {_NO_SUMS}. Pack the checkpoint that it was made from again.")
    return packed


def _out_of_date(packed: PackedFile, folder: Path) -> str | None:
    if packed.about.get("layout") != LAYOUT_VERSION:
        return f"it is in layout {packed.about.get('layout')}, this version reads {LAYOUT_VERSION}"
    if packed.about.get("source") != _fingerprint(folder):
        return "the checkpoint's files have changed since it was made"
    if not packed.has_sums:
        return f"it has {_NO_SUMS}"
    return None


def _fingerprint(folder: Path) -> list[list[Any]]:
    """Names, sizes and times of what a packed file is made from."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in files]


def _copy_other_files(folder: Path, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder; nothing is written over. Choose another.")
    out.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and not path.name.endswith((*_WEIGHT_SUFFIXES, INDEX_FILE)):
            shutil.copy2(path, out / path.name)


class _PackingParameters(Parameters):
    """Writes every weight that is asked for, and hands out one of its shape that takes no memory."""

    def __init__(self, writer: PackedWriter, real: Parameters) -> None:
        # Nothing of the base is used but the prefix: what is handed out comes from `real`, which reports progress.
        self._prefix = ""
        self._writer = writer
        self._real = real

    def weight(self, name: str) -> Weight:
        return self._stand_in(name, self._real.under(self._prefix).weight(name))

    def joined(self, *names: str) -> Weight:
        return self._stand_in("+".join(names), self._real.under(self._prefix).joined(*names))

    def experts(self, name: str) -> StackedWeight:
        return self._stand_in(name, self._real.under(self._prefix).experts(name))

    def exact(self, name: str) -> F32:
        array = self._real.under(self._prefix).exact(name)
        self._writer.add(self._prefix + name, {}, {"array": array})
        return array

    def _stand_in(self, name: str, weight: W) -> W:
        description, arrays = describe(weight)
        self._writer.add(self._prefix + name, description, arrays)
        # Zeros that nobody touches are not there: the system gives memory when it is written.
        zeros = {key: np.zeros(array.shape, array.dtype) for key, array in arrays.items()}
        return cast("W", rebuild(description, zeros))


class _PackedParameters(Parameters):
    """Hands out what a packed file holds."""

    def __init__(
        self,
        packed: PackedFile,
        arrays: Mapping[str, dict[str, NDArray[Any]]],
        config: Ernie4_5_VLMoeConfig,
        activations: Activations | None,
    ) -> None:
        # Nothing of the base is used but the prefix: there is no source to read and no progress to report.
        self._prefix = ""
        self._packed = packed
        self._arrays = arrays
        self._config = config
        self._rounding = activations

    def weight(self, name: str) -> Weight:
        return self._rebuilt(self._prefix + name)  # type: ignore[return-value]

    def joined(self, *names: str) -> Weight:
        return self._rebuilt(self._prefix + "+".join(names))  # type: ignore[return-value]

    def experts(self, name: str) -> StackedWeight:
        return self._rebuilt(self._prefix + name)  # type: ignore[return-value]

    def exact(self, name: str) -> F32:
        return self._found(self._prefix + name)["array"]

    def _rebuilt(self, name: str) -> Weight | StackedWeight:
        arrays = self._found(name)
        weight = rebuild(self._packed.entries[name].description, arrays)
        return weight if self._rounding is None else with_activations(weight, self._rounding)

    def _found(self, name: str) -> dict[str, NDArray[Any]]:
        if name not in self._arrays:
            raise CheckpointError(
                f"{self._packed.path} does not hold {name}; it belongs to another model or version. Delete it, and "
                "make it again with `tusi pack`."
            )
        return self._arrays[name]
