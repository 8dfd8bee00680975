"""What the `Auto*` classes share: which keyword arguments of Transformers mean what here.

An argument that would change the answer and is not honoured is a TypeError; those in IGNORED change nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from tusi.backends.hf.arrays import check_device
from tusi.core.errors import ConfigError
from tusi.core.types import WeightFormatChoice

# trust_remote_code: no code of a checkpoint is ever run. low_cpu_mem_usage, use_safetensors: always so. use_fast: one
# tokenizer. attn_implementation: one implementation. _attn_...: its old name. local_files_only: nothing is downloaded.
IGNORED = frozenset(
    {
        "trust_remote_code",
        "low_cpu_mem_usage",
        "use_safetensors",
        "use_fast",
        "attn_implementation",
        "_attn_implementation",
        "local_files_only",
        "padding_side",
    }
)

_WEIGHT_FORMATS: dict[str, WeightFormatChoice] = {
    "float32": "fp32",
    "fp32": "fp32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "auto": "auto",
    "int8": "int8",
    "int4": "int4",
}


def check_ignored(kwargs: Mapping[str, Any], function: str) -> None:
    """Raise TypeError for an argument that is not known to be harmless."""
    unknown = sorted(set(kwargs) - IGNORED)
    if unknown:
        raise TypeError(f"{function}() got keyword arguments that are not honoured here: {', '.join(unknown)}")


def weight_format(kwargs: dict[str, Any]) -> WeightFormatChoice:
    """Take dtype (or torch_dtype) out of kwargs. Names and other libraries' dtype objects are read by their names."""
    given = kwargs.pop("torch_dtype", None)
    dtype = kwargs.pop("dtype", given)
    if dtype is None:
        return "auto"
    name = str(dtype).rpartition(".")[2].strip("'>")
    if name not in _WEIGHT_FORMATS:
        raise ConfigError(
            f"dtype {str(dtype)!r} is not a weight format here; use bfloat16, float32, int8, int4 or auto "
            "(float16 would lose range that bfloat16 weights need)."
        )
    return _WEIGHT_FORMATS[name]


def check_device_map(kwargs: dict[str, Any]) -> None:
    """Take device_map out of kwargs; it must be the CPU or auto. Raises ConfigError."""
    device_map = kwargs.pop("device_map", None)
    devices = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    for device in devices:
        check_device(cast(object, device))
