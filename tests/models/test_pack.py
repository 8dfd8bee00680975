from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import struct
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.loading import load_weights
from tusi.core import machine
from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import WeightFormat
from tusi.engine.config import EngineConfig
from tusi.models import pack
from tusi.models.memory_estimate import estimate_memory
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.pack import find_packed, load_packed, pack_checkpoint, packed_path, write_packed
from tusi.models.packed_file import PackedFile, WeightMemory
from tusi.models.quantize import quantize_checkpoint
from tusi.models.random_checkpoint import tiny_config, with_layers, write_random_checkpoint
from tusi.models.random_weights import RandomParameters
from tusi.models.shapes import named_shape
from tusi.quant.weights import StackedWeight

ENGINE = EngineConfig(max_model_len=256)
FORMATS: tuple[WeightFormat, ...] = ("fp32", "bf16", "int8", "int4")
MEMORIES: tuple[WeightMemory, ...] = ("anonymous", "mmap")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "model")


def all_arrays(part: object) -> list[np.ndarray]:
    """Every array of a model, in the order of its fields."""
    if isinstance(part, np.ndarray):
        return [part]
    if isinstance(part, StackedWeight):
        return list(part.arrays)
    if isinstance(part, tuple):
        return [array for child in part for array in all_arrays(child)]
    if is_dataclass(part):
        return [array for field in fields(part) for array in all_arrays(getattr(part, field.name))]
    return []


def assert_same(one: object, other: object) -> None:
    pairs = list(zip(all_arrays(one), all_arrays(other), strict=True))
    assert len(pairs) > 50
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_packed_model_is_the_model(folder: Path, weight_format: WeightFormat, memory: WeightMemory) -> None:
    plain = Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(folder, weight_format)
    path = pack_checkpoint(folder, weight_format)
    assert path == packed_path(folder, weight_format)
    packed = find_packed(folder, weight_format)
    assert packed is not None
    model = load_packed(folder, packed, memory=memory)
    assert model.dtype == weight_format
    assert_same(model, plain)


def test_a_tied_head_stays_one_matrix(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "tied", config=tiny_config(tie_word_embeddings=True))
    pack_checkpoint(folder, "int4")
    packed = find_packed(folder, "int4")
    assert packed is not None
    model = load_packed(folder, packed)
    assert model.lm_head is model.embed_tokens


def test_a_quantized_checkpoint_can_be_packed(folder: Path, tmp_path: Path) -> None:
    quantize_checkpoint(folder, tmp_path / "q", bits=4, group_size=32)
    plain = Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(tmp_path / "q")
    pack_checkpoint(tmp_path / "q", "auto")
    packed = find_packed(tmp_path / "q", "auto")
    assert packed is not None
    assert_same(load_packed(tmp_path / "q", packed), plain)


def test_loading_takes_the_packed_file_and_answers_as_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pack_checkpoint(folder, "int8")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the checkpoint was converted")

    monkeypatch.setattr(Ernie4_5_VLMoeForConditionalGeneration, "from_pretrained", never)
    seen: list[tuple[str, int, int]] = []
    model = load_weights(folder, dtype="int8", engine_config=ENGINE, progress=lambda *call: seen.append(call))
    assert model.dtype == "int8"
    assert seen[-1][1] == seen[-1][2] > 0
    with pytest.raises(AssertionError, match="converted"):
        load_weights(folder, dtype="bf16", engine_config=ENGINE)


def change_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")


def touch_weights(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))


def raise_layout(folder: Path) -> None:
    pack.LAYOUT_VERSION += 1


def forget_sums(folder: Path) -> None:
    """As an earlier version wrote it."""
    path = packed_path(folder, "int4")
    content = path.read_bytes()
    magic, version, offset, length, _ = (head := struct.Struct("<8sQQQ32s")).unpack(content[: 8 * 4 + 32])
    index = json.loads(content[offset : offset + length])
    del index["sums"]
    raw = json.dumps(index).encode()
    begin = head.pack(magic, version, offset, len(raw), hashlib.sha256(raw).digest())
    path.write_bytes(begin + content[len(begin) : offset] + raw)


@pytest.mark.parametrize("change", [change_config, touch_weights, raise_layout, forget_sums])
def test_a_packed_file_out_of_date_is_not_used_and_said_so(
    folder: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pack_checkpoint(folder, "int4")
    monkeypatch.setattr(pack, "LAYOUT_VERSION", pack.LAYOUT_VERSION)  # put back afterwards
    change(folder)
    with caplog.at_level(logging.WARNING):
        assert find_packed(folder, "int4") is None
    assert "Make it again with `tusi pack`" in caplog.text


def test_a_packed_folder_stands_alone(folder: Path, tmp_path: Path) -> None:
    plain = Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(folder, "int4")
    out = tmp_path / "alone"
    pack_checkpoint(folder, "int4", out=out)
    assert not list(out.glob("*.safetensors*"))
    model = load_weights(out, dtype="auto", engine_config=ENGINE)
    assert_same(model, plain)
    with pytest.raises(ConfigError, match="holds packed weights alone"):
        load_weights(out, dtype="bf16", engine_config=ENGINE)
    with LocalBackend.load(out, max_model_len=256) as backend:
        assert backend.precision == "int4"
    with pytest.raises(ConfigError, match="nothing is written over"):
        pack_checkpoint(folder, "int4", out=out)


def test_a_packed_folder_of_another_layout_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_checkpoint(folder, "int4", out=tmp_path / "alone")
    monkeypatch.setattr(pack, "LAYOUT_VERSION", pack.LAYOUT_VERSION + 1)
    with pytest.raises(CheckpointError, match="this version reads"):
        find_packed(tmp_path / "alone", "auto")


def test_mapping_needs_a_packed_file_and_counts_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSI_WEIGHT_MEMORY", "mmap")
    with pytest.raises(ConfigError, match="tusi pack"):
        load_weights(folder, dtype="int8", engine_config=ENGINE)
    path = pack_checkpoint(folder, "int8")
    size = path.stat().st_size
    plenty = machine.memory().available
    assert plenty is not None

    def available(num_bytes: int) -> None:
        memory = machine.Memory(total=plenty, available=num_bytes, limit=None)
        monkeypatch.setattr(machine, "memory", lambda: memory)

    least = _needed_without_weights()
    available(least + 1)
    load_weights(folder, dtype="int8", engine_config=ENGINE)
    with pytest.raises(ConfigError, match="are free here"):
        load_weights(folder, dtype="int8", engine_config=ENGINE, weight_memory="anonymous")
    available(least + size)
    load_weights(folder, dtype="int8", engine_config=ENGINE, weight_memory="anonymous")


def test_a_packed_folder_without_sums_is_refused(folder: Path, tmp_path: Path) -> None:
    pack_checkpoint(folder, "int4", out=tmp_path / "alone")
    forget_sums(tmp_path / "alone")
    with pytest.raises(CheckpointError, match="has no checksums"):
        find_packed(tmp_path / "alone", "auto")


@pytest.mark.parametrize("weight_format", FORMATS)
def test_the_estimate_is_exact(tmp_path: Path, weight_format: WeightFormat) -> None:
    """`tusi fit` counts every byte of the arrays that are loaded, on a shape whose matrices need no padding."""
    config = named_shape("small")
    text = with_layers(config.text_config, 2)
    config = replace(config, text_config=text)
    path = tmp_path / "small.packed"
    write_packed(path, {"format": weight_format}, config, RandomParameters(config, weight_format))
    entries = PackedFile(path).entries.values()
    held = sum(
        math.prod(shape) * np.dtype(dtype).itemsize for entry in entries for dtype, shape, _ in entry.arrays.values()
    )
    assert held == estimate_memory(config, weight_format, context=1).weights_total


def _needed_without_weights() -> int:
    config = tiny_config()
    return estimate_memory(config, "int8", context=0, batched_tokens=1024).fixed_without_weights + (
        2 * 2 * 2 * 16 * 2 * 256
    )


def test_packing_takes_one_stack_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What modules hold while packing takes no memory: zeros that nobody touches."""
    held: list[Any] = []
    original = Ernie4_5_VLMoeForConditionalGeneration.from_parameters

    def keep(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        held.append(model)
        return model

    monkeypatch.setattr(Ernie4_5_VLMoeForConditionalGeneration, "from_parameters", keep)
    pack_checkpoint(folder, "int4")
    assert not held[0].lm_head.arrays[0].any()
