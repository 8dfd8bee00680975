"""A checkpoint folder opened for reading: every tensor accounted for before the first one is used.

In: a folder in the published layout (one safetensors file, or shards with an index). Out: tensors under their names in
memory (`key_table`), one at a time, so that memory stays low. Anything missing, left over, mis-shaped or of a wrong
dtype is listed in one CheckpointError. Knows nothing of weight formats or of the forward pass.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tusi.core.errors import CheckpointError
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.config_io import parse_config, read_config_json
from tusi.models.key_table import Part, TensorSpec, canonical_disk_name, tensor_specs
from tusi.models.packed_tensors import check_packed, packed_name, packed_names, read_packed, stored_packed_bytes
from tusi.models.safetensors_io import DTYPES, Array, SafetensorsFile, TensorInfo
from tusi.quant.weights import Weight, concat_rows

logger = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"


class Checkpoint(Mapping[str, Array]):
    """The tensors of a checkpoint by their names in memory, as stored (bfloat16 as uint16 bits).

    Reading one assembles it from its parts. Raises CheckpointError on opening if the files are not sound.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        raw = read_config_json(self.folder)
        config = parse_config(raw, source=str(self.folder / "config.json"))
        self._files = _open_files(self.folder)
        self.config: Ernie4_5_VLMoeConfig = _with_head_as_stored(config, raw, self._files)
        self.specs: dict[str, TensorSpec] = tensor_specs(self.config)
        _check_tensors(self.folder, self.config, self.specs, self._files)
        if self.config.tie_word_embeddings and {_HEAD, _EMBEDDING} <= self._files.keys():
            self._compare_heads()

    def __getitem__(self, name: str) -> Array:
        spec = self.specs[name]
        if packed_name(spec.parts[0].disk) in self._files:
            raise CheckpointError(
                f"{name} is stored quantised in {self.folder}, and what was asked for are its values before that. Take "
                "the checkpoint that it was quantised from: training, exporting and quantising need it."
            )
        first = self.disk(spec.parts[0].disk)
        if len(spec.parts) == 1:
            return _taken(first, spec.parts[0])
        out = np.empty(spec.shape, first.dtype)
        for part in spec.parts:
            out[part.memory_index] = _taken(self.disk(part.disk), part)
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def expert(self, name: str, e: int) -> Array:
        """Matrix number `e` of a stack of experts, without reading the others."""
        spec = self.specs[name]
        parts = [part for part in spec.parts if part.memory_index and part.memory_index[0] == e]
        out = np.empty(spec.shape[1:], self.disk(parts[0].disk).dtype)
        for part in parts:
            out[part.memory_index[1:]] = _taken(self.disk(part.disk), part)
        return out

    def stored_bytes(self, name: str) -> int:
        """Bytes that a tensor takes in the files."""
        spec = self.specs[name]
        if packed_name(spec.parts[0].disk) in self._files:
            return sum(stored_packed_bytes(part, self._files) for part in spec.parts)
        file, stored_name = self._files[spec.parts[0].disk]
        return spec.size * DTYPES[file.tensors[stored_name].dtype].itemsize

    def packed(self, name: str, expert: int | None = None) -> Weight | None:
        """A matrix (of a stack: number `expert`) that is stored as codes, with these very codes; None if plain."""
        spec, quantization = self.specs[name], self.config.quantization
        if quantization is None or packed_name(spec.parts[0].disk) not in self._files:
            return None
        parts = [part for part in spec.parts if expert is None or part.memory_index[:1] == (expert,)]
        return concat_rows(*(read_packed(part, spec, quantization, self._files) for part in parts))

    def stored_name(self, name: str) -> str:
        """How the file spells a published name (transformers puts `model.` before `vision_model.`)."""
        return self._files[name][1]

    def stored_info(self, name: str) -> TensorInfo:
        """Dtype, shape and place of a published tensor in its file."""
        file, stored = self._files[name]
        return file.tensors[stored]

    @property
    def files(self) -> list[Path]:
        """The safetensors files, in order."""
        return sorted({file.path for file, _ in self._files.values()})

    def disk(self, name: str) -> Array:
        """A tensor under its published name."""
        file, stored_name = self._files[name]
        return file.read(stored_name)

    def _compare_heads(self) -> None:
        """The config says tied and a head is stored: the config rules, but a different head must not go unnoticed."""
        head, embedding = self.disk(_HEAD), self.disk(_EMBEDDING)
        if head.dtype != embedding.dtype or head.shape != embedding.shape or not np.array_equal(head, embedding):
            logger.warning(
                "%s stores a lm_head.weight that differs from the embedding, though config.json says "
                "tie_word_embeddings true. The embedding is used, as transformers and vLLM do. If the stored head is "
                "the trained one, set tie_word_embeddings to false in config.json.",
                self.folder,
            )


def _with_head_as_stored(config: Ernie4_5_VLMoeConfig, raw: object, files: Collection[str]) -> Ernie4_5_VLMoeConfig:
    """Where a flat config does not say whether the head is tied, a stored head is the head.

    The original code and transformers have opposite defaults for the missing key; the files decide. A nested config is
    transformers' own and leaves the key out when tied.
    """
    silent = isinstance(raw, dict) and "text_config" not in raw and raw.get("tie_word_embeddings") is None
    return replace(config, tie_word_embeddings=False) if silent and {_HEAD, packed_name(_HEAD)} & set(files) else config


def _taken(disk: Array, part: Part) -> Array:
    chosen = disk[part.disk_index] if part.disk_index else disk
    return chosen.T if part.transposed else chosen


def _open_files(folder: Path) -> dict[str, tuple[SafetensorsFile, str]]:
    """Tensor by canonical published name -> its file and its name there."""
    if (folder / SINGLE_FILE).exists():
        files = [SafetensorsFile(folder / SINGLE_FILE)]
        expected = None
    elif (folder / INDEX_FILE).exists():
        expected = _read_index(folder)
        files = [SafetensorsFile(folder / name) for name in sorted(set(expected.values()))]
    else:
        raise CheckpointError(
            f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}. {_advice_for_no_weights(folder)}"
        )
    found: dict[str, tuple[SafetensorsFile, str]] = {}
    problems = []
    for file in files:
        for name in file.tensors:
            canonical = canonical_disk_name(name)
            if canonical in found:
                problems.append(f"{name} is stored twice, in {found[canonical][0].path.name} and {file.path.name}")
            elif expected is not None and expected.get(name, file.path.name) != file.path.name:
                problems.append(f"{name} is in {file.path.name}, the index says {expected[name]}")
            found[canonical] = (file, name)
    for name, file_name in (expected or {}).items():
        if canonical_disk_name(name) not in found:
            problems.append(f"{name} is not in {file_name}, where the index says it is")
    if problems:
        raise _error(folder, problems, "Download the checkpoint again.")
    return found


def _advice_for_no_weights(folder: Path) -> str:
    if any(folder.glob("*.pdparams")):
        return "It holds Paddle weights; download the -PT variant of this checkpoint instead."
    if any(folder.glob("*.gguf")):
        return "It holds GGUF weights, which are for llama.cpp; download the safetensors checkpoint instead."
    if any(folder.glob("*.bin")):
        return "It holds PyTorch pickles, which are never loaded; download the safetensors checkpoint instead."
    return "The weights are published as safetensors: check the path, or finish the download with `tusi pull`."


def _read_index(folder: Path) -> dict[str, str]:
    path = folder / INDEX_FILE
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error!r}); expected a JSON object with a weight_map from tensor to file. "
            "Download it again."
        ) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has an empty or wrong weight_map; expected tensor to file. Download it again.")
    problems = []
    for file_name in sorted({str(value) for value in weight_map.values()}):
        # A plain name only: an index must not make us read outside its folder.
        if Path(file_name).name != file_name or "\\" in file_name or "\0" in file_name or file_name in (".", ".."):
            problems.append(f"the index names {file_name!r}, which is not a plain file name in this folder")
        elif not os.path.isfile(folder / file_name):  # which, unlike pathlib, takes a name too long for "no"
            problems.append(f"the shard {file_name} is missing")
    if problems:
        raise _error(folder, problems, "Finish the download with `tusi pull`, or download the checkpoint again.")
    return {str(name): str(value) for name, value in weight_map.items()}


def _is_ignored(name: str) -> bool:
    """Tensors that some training checkpoints carry and that inference has no use for."""
    return any(part.startswith("mtp") or part == "expert_usage" for part in name.split("."))


def _check_tensors(
    folder: Path,
    config: Ernie4_5_VLMoeConfig,
    specs: Mapping[str, TensorSpec],
    files: Mapping[str, tuple[SafetensorsFile, str]],
) -> None:
    problems: list[str] = []
    expected: set[str] = set()
    for spec in specs.values():
        dtypes: set[str] = set()
        packing: set[str] = set()
        for part in spec.parts:
            if config.quantization is not None and packed_name(part.disk) in files:
                found, kind = check_packed(part, spec, config.quantization, files)
                problems.extend(found)
                expected.update(packed_names(part.disk))
                packing.add(kind)
                continue
            packing.add("plain")
            expected.add(part.disk)
            if part.disk not in files:
                problems.append(f"missing: {part.disk} {list(part.disk_shape)}")
                continue
            file, name = files[part.disk]
            info = file.tensors[name]
            dtypes.add(info.dtype)
            if info.shape != part.disk_shape:
                problems.append(f"shape: {name} is {list(info.shape)}, expected {list(part.disk_shape)}")
        problems.extend(_dtype_problems(spec, dtypes))
        if len(packing) > 1:
            problems.append(f"storage: the parts of {spec.name} are {', '.join(sorted(packing))}; expected one for all")
    allowed = {_HEAD, *packed_names(_HEAD)} if config.tie_word_embeddings else set()
    extra = [name for name in files if name not in expected and name not in allowed and not _is_ignored(name)]
    problems.extend(f"not part of this model: {files[name][1]}" for name in extra)
    if problems:
        raise _error(folder, list(dict.fromkeys(problems)), _advice(problems, extra, config))


def _dtype_problems(spec: TensorSpec, dtypes: set[str]) -> list[str]:
    problems = [
        f"dtype: {spec.parts[0].disk} is {dtype}, expected {', '.join(DTYPES)}"
        for dtype in sorted(dtypes - set(DTYPES))
    ]
    if not problems and len(dtypes) > 1:
        problems.append(f"dtype: the parts of {spec.name} are {', '.join(sorted(dtypes))}; expected one for all")
    return problems


def _advice(problems: list[str], extra: list[str], config: Ernie4_5_VLMoeConfig) -> str:
    if any(name.startswith("ernie.") for name in extra):
        return "These are the tensors of a -Paddle repository; download the -PT variant instead."
    if any(name.startswith("model.language_model.") for name in extra):
        return (
            "These are transformers' module names; its save_pretrained writes published ones. Save it again with that."
        )
    if not config.tie_word_embeddings and any(problem.startswith(f"missing: {_HEAD}") for problem in problems):
        return (
            "config.json says tie_word_embeddings false, so a lm_head.weight must be stored. If the head is the "
            "embedding, set tie_word_embeddings to true; otherwise download the checkpoint again."
        )
    return "Check that config.json belongs to these weights, and that the download is complete (`tusi pull`)."


def _error(folder: Path, problems: list[str], advice: str) -> CheckpointError:
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return CheckpointError(f"{folder} does not hold the model that its config.json describes:\n{listed}\n{advice}")
