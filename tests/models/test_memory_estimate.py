"""The figures of docs on the published models, and of arrays that are really allocated."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tusi.core.types import WeightFormat
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.known import KNOWN_MODELS, known_config
from tusi.models.memory_estimate import (
    checkpoint_bytes,
    count_parameters,
    estimate_memory,
    kv_cache_bytes_per_token,
)
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.random_checkpoint import TINY_TEXT, TINY_VISION, tiny_config, write_random_checkpoint

PUBLISHED = KNOWN_MODELS["baidu/ERNIE-4.5-VL-28B-A3B-Thinking"]
TIED = replace(PUBLISHED, tie_word_embeddings=True)


def test_parameters_by_component_are_the_published_ones() -> None:
    assert count_parameters(PUBLISHED) == {
        "token embedding": 264_765_440,
        "attention": 440_401_920,
        "norms": 145_920,
        "dense FFN": 94_371_840,
        "text experts": 20_384_317_440,
        "vision experts": 6_794_772_480,
        "shared experts": 637_009_920,
        "text routers": 4_423_680,
        "vision routers": 4_423_680,
        "correction biases": 3_456,
        "vision tower": 630_433_280,
        "resampler": 144_225_280,
        "lm head": 264_765_440,
    }


def test_totals_are_the_published_ones() -> None:
    assert sum(count_parameters(PUBLISHED).values()) == 29_664_059_776
    assert sum(count_parameters(TIED).values()) == 29_399_294_336
    assert round(checkpoint_bytes(PUBLISHED) / 1e9, 2) == 59.35
    assert round(checkpoint_bytes(TIED) / 1e9, 2) == 58.82


def test_kv_cache_of_the_published_model() -> None:
    assert kv_cache_bytes_per_token(PUBLISHED) == 57_344
    estimate = estimate_memory(PUBLISHED, "bf16", context=131_072)
    assert estimate.kv_cache == 7 * 2**30


def test_known_names_in_any_case() -> None:
    assert known_config("Baidu/ernie-4.5-vl-28b-a3b-thinking") == PUBLISHED
    assert known_config("baidu/ERNIE-4.5-VL-28B-A3B-PT") == TIED
    assert known_config("acme/tiny") is None


@pytest.mark.parametrize("weight_format", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_take_what_was_estimated(tmp_path: Path, weight_format: WeightFormat, tied: bool) -> None:
    config = tiny_config(tie_word_embeddings=tied)
    folder = write_random_checkpoint(tmp_path / "m", config=config)
    model = Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(folder, weight_format)
    estimated = estimate_memory(config, weight_format, context=1).weights_total
    assert _held_bytes(model) == pytest.approx(estimated, rel=1e-3)


def _held_bytes(model: object) -> int:
    """Bytes of all arrays reachable from a model; what several of them share (views of one matrix) counts once."""
    total, reached = 0, 0
    for begin, end in sorted(_spans(model)):
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _spans(value: object) -> Iterator[tuple[int, int]]:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        yield value.ctypes.data, value.ctypes.data + value.nbytes
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _spans(item)
    else:
        fields = [
            getattr(cls, "__dataclass_fields__", {}) for cls in type(value).__mro__ if cls is not Ernie4_5_VLMoeConfig
        ]
        for name in dict.fromkeys(name for names in fields for name in names):
            if name != "config":
                yield from _spans(getattr(value, name))


def test_vision_activations_are_close_to_what_is_allocated(tmp_path: Path) -> None:
    # Full width, one block: depth does not change the peak. Narrow decoder, so that its features do not matter.
    vision = replace(TINY_VISION, depth=1, hidden_size=320, intermediate_size=1280, num_heads=4)
    config = tiny_config(text=TINY_TEXT, vision=vision)
    folder = write_random_checkpoint(tmp_path / "m", config=config)
    model = Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(folder, "fp32")
    height, width = 48, 64
    num_patches = height * width
    tracemalloc.start()
    try:
        pixels = np.zeros((num_patches, vision.patch_dim), np.float32)
        model.get_media_features(pixels, (1, height, width))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimated = estimate_memory(config, "fp32", context=1, num_patches=num_patches).vision_activations
    assert 0.9 * peak <= estimated <= 1.2 * peak, (peak, estimated)


def test_less_precision_and_less_context_take_less() -> None:
    totals = [estimate_memory(PUBLISHED, f, context=4096).total for f in ("fp32", "bf16", "int8", "int4")]
    assert totals == sorted(totals, reverse=True)
    assert (
        estimate_memory(PUBLISHED, "int4", context=4096).total < estimate_memory(PUBLISHED, "int4", context=8192).total
    )
