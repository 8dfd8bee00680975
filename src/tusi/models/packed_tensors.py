"""The three tensors of a packed matrix in a checkpoint's files: checked against its shape, and read.

X.weight is stored as X.weight_packed (32-bit words, see `quant.packed`), X.weight_scale (one a group) and
X.weight_shape (two whole numbers). In: a part of the key table and the files by published name. Out: problems, weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from tusi.core.errors import CheckpointError
from tusi.models.key_table import Part, TensorSpec
from tusi.models.quantization import Quantization
from tusi.models.safetensors_io import DTYPES, SafetensorsFile
from tusi.quant.packed import packed_width, unpack_weight
from tusi.quant.weights import Weight

Files = Mapping[str, tuple[SafetensorsFile, str]]


def packed_name(disk: str) -> str:
    """The words of a matrix with this published name."""
    return disk + "_packed"


def packed_names(disk: str) -> tuple[str, str, str]:
    """Words, scales and shape."""
    return disk + "_packed", disk + "_scale", disk + "_shape"


def check_packed(part: Part, spec: TensorSpec, quantization: Quantization, files: Files) -> tuple[list[str], str]:
    """What is wrong with the three tensors, by their headers alone; and how the matrix is stored, in words."""
    group = quantization.group_of(part.disk.removesuffix(".weight"), spec.kind)
    if group is None:
        return [f"{packed_name(part.disk)} is packed, but no group of quantization_config covers it"], "unknown"
    rows, width = part.disk_shape
    expected: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
        ((rows, packed_width(width, group.num_bits)), ("I32",)),
        ((rows, -(-width // group.group_size)), tuple(DTYPES)),
        ((2,), ("I64",)),
    )
    problems = []
    for name, (shape, dtypes) in zip(packed_names(part.disk), expected, strict=True):
        if name not in files:
            problems.append(f"missing: {name} {list(shape)}")
            continue
        file, stored = files[name]
        info = file.tensors[stored]
        if info.shape != shape:
            problems.append(f"shape: {stored} is {list(info.shape)}, expected {list(shape)}")
        if info.dtype not in dtypes:
            problems.append(f"dtype: {stored} is {info.dtype}, expected {', '.join(dtypes)}")
    return problems, f"{group.num_bits} bits in groups of {group.group_size}"


def read_packed(part: Part, spec: TensorSpec, quantization: Quantization, files: Files) -> Weight:
    """The weight with the stored codes. Raises CheckpointError if its stored shape is another."""
    group = quantization.group_of(part.disk.removesuffix(".weight"), spec.kind)
    assert group is not None  # the check on opening said so
    words_NW, scales_NG, shape = (files[name][0].read(files[name][1]) for name in packed_names(part.disk))
    if tuple(shape.tolist()) != part.disk_shape:
        raise CheckpointError(
            f"{part.disk}_shape says {shape.tolist()}; this model's matrix is {list(part.disk_shape)}. The file is "
            "damaged or belongs to another model: download or quantise it again."
        )
    if scales_NG.dtype != "<u2":
        scales_NG = scales_NG.astype("<f4")
    return unpack_weight(words_NW, scales_NG, part.disk_shape[1], group.num_bits, group.group_size)


def stored_packed_bytes(part: Part, files: Files) -> int:
    """Bytes of the three tensors in their files."""
    infos = [files[name][0].tensors[files[name][1]] for name in packed_names(part.disk)]
    return sum(info.end - info.begin for info in infos)
