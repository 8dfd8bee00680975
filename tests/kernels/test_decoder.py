"""What a stack of layers, its caches and a step refuse; what it computes is in tests/models/test_decoder.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.helpers import normal
from tusi import kernels

WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER, EXPERTS = 32, 4, 2, 8, 16, 3


def plain(rows: int, inner: int, seed: int = 0) -> kernels.PlainMatrix:
    return kernels.PlainMatrix(normal(rows, inner, seed=seed))


def experts(count: int, width: int = WIDTH) -> kernels.PlainExperts:
    return kernels.PlainExperts(normal(count, 2 * INNER, width), normal(count, width, INNER))


def pool(width: int = WIDTH) -> kernels.Pool:
    return kernels.Pool(normal(EXPERTS, width), normal(EXPERTS), experts(EXPERTS, width))


def layer(**changed: Any) -> kernels.StackLayer:
    parts: dict[str, Any] = {
        "input_norm_D": normal(WIDTH),
        "qkv": plain((HEADS + 2 * KV_HEADS) * HEAD_DIM, WIDTH),
        "o": plain(WIDTH, HEADS * HEAD_DIM),
        "post_norm_D": normal(WIDTH),
        "text": pool(),
        "vision": pool(),
        "shared": experts(1),
    }
    return kernels.StackLayer(**parts | changed)


def stack(*layers: kernels.StackLayer, **changed: Any) -> kernels.DecoderStack:
    numbers: dict[str, Any] = {
        "num_heads": HEADS,
        "num_kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "top_k": 2,
        "eps": 1e-5,
        "norm_min": 1e-12,
        "activations": "float32",
    }
    return kernels.DecoderStack(layers, **numbers | changed)


def cache(blocks: int = 2, dtype: Any = np.float32) -> kernels.LayerKVCache:
    keys = np.zeros((blocks, KV_HEADS, HEAD_DIM, 4), dtype)
    return kernels.LayerKVCache(keys, np.zeros((blocks, KV_HEADS, 4, HEAD_DIM), dtype))


def step(stack: kernels.DecoderStack, caches: list[kernels.LayerKVCache], **changed: Any) -> np.ndarray:
    arrays: dict[str, Any] = {
        "hidden_TD": normal(3, WIDTH),
        "cos_TP": normal(3, HEAD_DIM // 2),
        "sin_TP": normal(3, HEAD_DIM // 2),
        "slot_mapping_T": np.arange(3),
        "block_table_RB": np.array([[0, 1]], np.int32),
        "query_start_loc_R1": np.array([0, 3], np.int32),
        "seq_lens_R": np.array([3], np.int32),
        "scale": 1.0,
    }
    return kernels.run_stack(stack, caches, **arrays | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"o": plain(WIDTH + 8, HEADS * HEAD_DIM)}, "width of qkv's input is 32; expected 40"),
        ({"text": None}, "pools is missing"),
        ({"text": None, "vision": None, "shared": None}, "neither pools nor shared"),
        ({"shared": experts(2)}, "several experts"),
        ({"vision": pool(WIDTH + 8)}, "take vectors of 40"),
        ({"post_norm_D": normal(WIDTH + 1)}, "post_norm_D"),
    ],
)
def test_a_layer_whose_parts_do_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_heads": 3}, "3 heads share 2"),
        ({"head_dim": 4}, "the rows of qkv"),
        ({"top_k": 4}, "4 of 3 experts"),
        ({"activations": "int4"}, "activations is 'int4'"),
    ],
)
def test_a_stack_whose_numbers_do_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stack(layer(), **changed)


def test_a_stack_needs_layers() -> None:
    with pytest.raises(ValueError, match="no layers"):
        stack()


def test_caches_must_be_one_a_layer_and_alike() -> None:
    two = stack(layer(), layer())
    with pytest.raises(ValueError, match="number of caches is 1; expected 2"):
        step(two, [cache()])
    with pytest.raises(ValueError, match="shape"):
        step(two, [cache(), cache(blocks=3)])
    with pytest.raises(ValueError, match="differ in their format"):
        step(two, [cache(), cache(dtype=np.uint16)])


def test_keys_and_values_must_not_share_memory() -> None:
    both = np.zeros((2, KV_HEADS, HEAD_DIM, HEAD_DIM), np.float32)
    with pytest.raises(ValueError, match="memory"):
        kernels.LayerKVCache(both, both)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slot_mapping_T": np.array([0, 1, 8])}, "slot_mapping_T"),
        ({"block_table_RB": np.array([[2, 0]], np.int32)}, "block_table_RB"),
        ({"seq_lens_R": np.array([2], np.int32)}, "seq_lens_R"),
        ({"hidden_TD": normal(3, WIDTH + 1)}, "hidden_TD"),
        ({"vision_mask_T": np.zeros(2, np.uint8)}, "vision_mask_T"),
        ({"topk_ids_LTK": np.zeros((1, 3, 2), np.int32)}, "one of topk_weights_LTK"),
        (
            {"topk_ids_LTK": np.zeros((2, 3, 2), np.int32), "topk_weights_LTK": np.zeros((2, 3, 2), np.float32)},
            "topk_weights_LTK",
        ),
    ],
)
def test_a_step_whose_arrays_do_not_fit_writes_nothing(changed: dict[str, Any], message: str) -> None:
    untouched = cache()
    with pytest.raises(ValueError, match=message):
        step(stack(layer()), [untouched], **changed)
    assert not untouched.key_CMHS.any()


def test_a_step_without_tokens_is_none() -> None:
    nothing: dict[str, Any] = {
        "hidden_TD": normal(0, WIDTH),
        "cos_TP": normal(0, HEAD_DIM // 2),
        "sin_TP": normal(0, HEAD_DIM // 2),
        "slot_mapping_T": np.arange(0),
        "query_start_loc_R1": np.array([0], np.int32),
        "block_table_RB": np.zeros((0, 2), np.int32),
        "seq_lens_R": np.zeros(0, np.int32),
    }
    assert step(stack(layer()), [cache()], **nothing).shape == (0, WIDTH)
