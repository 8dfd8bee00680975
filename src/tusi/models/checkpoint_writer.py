"""A checkpoint folder written in the published layout: the exact inverse of `checkpoint`.

In: a configuration and tensors under their names in memory. Out: config.json and safetensors, sharded by size, in a
folder that appears only when it is whole. Knows nothing of the forward pass.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tusi.core.errors import CheckpointError, ConfigError
from tusi.models.checkpoint import INDEX_FILE, SINGLE_FILE
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.config_write import ConfigLayout, config_to_dict
from tusi.models.key_table import (
    HUB_VISION_PREFIX,
    TRANSFORMERS_VISION_PREFIX,
    Part,
    TensorSpec,
    tensor_specs,
)
from tusi.models.safetensors_io import DTYPES, Array, TensorToWrite, write_safetensors

DEFAULT_MAX_SHARD_BYTES = 5_000_000_000
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_checkpoint(
    folder: str | Path,
    config: Ernie4_5_VLMoeConfig,
    tensors: Mapping[str, Array],
    *,
    layout: ConfigLayout = "hub",
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
    other_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a checkpoint that `Checkpoint` (and transformers, for layout="transformers") reads back bit for bit.

    tensors: by name in memory; float32, float16 or bfloat16 bits (uint16). A lazy mapping is read tensor by tensor.
    layout: "hub" writes the flat config and `vision_model.*`; "transformers" the nested one and `model.vision_model.*`.
    other_files: tokenizer and the like, by file name.
    Raises ConfigError if the folder is not empty, CheckpointError listing every missing, extra or mis-shaped tensor.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} exists and is not an empty folder; a checkpoint is never written over. Choose another."
        )
    if config.quantization is not None:
        raise ConfigError(
            "the configuration is that of a quantised checkpoint, and what is saved here are plain tensors. Save from "
            "the plain checkpoint, then use `tusi quantize`."
        )
    specs = tensor_specs(config)
    _check_complete(specs, tensors)
    config_json = json.dumps(config_to_dict(config, layout), indent=2).encode()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        _write_weights(partial, specs, tensors, layout, max_shard_bytes)
        for name, content in {"config.json": config_json, **(other_files or {})}.items():
            (partial / name).write_bytes(content)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_complete(specs: Mapping[str, TensorSpec], tensors: Mapping[str, Array]) -> None:
    problems = [f"missing: {name}" for name in specs if name not in tensors]
    problems += [f"not part of this model: {name}" for name in tensors if name not in specs]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise CheckpointError(
            f"the tensors to save are not those of the configuration:\n{listed}\n"
            "Pass exactly the tensors of this model."
        )


def _write_weights(
    folder: Path,
    specs: Mapping[str, TensorSpec],
    tensors: Mapping[str, Array],
    layout: ConfigLayout,
    max_shard_bytes: int,
) -> None:
    prefix = HUB_VISION_PREFIX if layout == "hub" else TRANSFORMERS_VISION_PREFIX
    shards = list(_shards(_headers(specs, tensors), max_shard_bytes))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file_name = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        renamed = [TensorToWrite(_prefixed(t.name, prefix), t.dtype, t.shape) for t in shard]
        weight_map |= {tensor.name: file_name for tensor in renamed}
        write_safetensors(folder / file_name, renamed, _disk_tensors(shard, specs, tensors))
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2), "utf-8")


def _prefixed(name: str, vision_prefix: str) -> str:
    if name.startswith(HUB_VISION_PREFIX):
        return vision_prefix + name.removeprefix(HUB_VISION_PREFIX)
    return name


def _headers(specs: Mapping[str, TensorSpec], tensors: Mapping[str, Array]) -> Iterator[TensorToWrite]:
    """Every tensor on disk, once, in the order of the tensors in memory."""
    dtypes: dict[str, str] = {}
    for spec in specs.values():
        array = tensors[spec.name]
        if array.shape != spec.shape or array.dtype not in _DTYPE_NAMES:
            raise CheckpointError(
                f"{spec.name} is {array.dtype} {list(array.shape)}; expected {list(spec.shape)} in float32, float16 or "
                "bfloat16 bits (uint16). Convert it before saving."
            )
        dtype = _DTYPE_NAMES[array.dtype]
        for part in spec.parts:
            if part.disk not in dtypes:
                dtypes[part.disk] = dtype
                yield TensorToWrite(part.disk, dtype, part.disk_shape)
            elif dtypes[part.disk] != dtype:
                raise CheckpointError(
                    f"{spec.name} is {dtype} but shares {part.disk} on disk with a tensor that is {dtypes[part.disk]}; "
                    "both must have one dtype. Convert one of them before saving."
                )


def _shards(tensors: Iterator[TensorToWrite], max_bytes: int) -> Iterator[list[TensorToWrite]]:
    shard: list[TensorToWrite] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.nbytes > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.nbytes
    if shard:
        yield shard


def _disk_tensors(
    shard: list[TensorToWrite], specs: Mapping[str, TensorSpec], tensors: Mapping[str, Array]
) -> Iterator[Array]:
    """The data of a shard, in its order. Experts come one after another, so the stack last read is kept."""
    sources: dict[str, list[tuple[TensorSpec, Part]]] = {}
    for spec in specs.values():
        for part in spec.parts:
            sources.setdefault(part.disk, []).append((spec, part))
    kept_name, kept = "", np.empty(0, np.float32)
    for tensor in shard:
        out = np.empty(tensor.shape, DTYPES[tensor.dtype])
        for spec, part in sources[tensor.name]:
            if spec.name != kept_name:
                kept_name, kept = spec.name, tensors[spec.name]
            chosen = kept[part.memory_index] if part.memory_index else kept
            out[part.disk_index] = chosen.T if part.transposed else chosen
        yield out
