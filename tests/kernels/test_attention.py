from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.helpers import assert_refuses_bad_arrays, each_isa, normal
from tusi import kernels
from tusi.kernels import reference

HEAD_DIMS = [8, 20, 24, 80, 128]
CACHES = ["float32", "bfloat16", "int8"]
# A score is a chain of head_dim roundings, an exp is within 2 units in the last place, then up to 600 weighted values
# are summed; against float64 the reference is off by 3e-6 here, the native kernels by 5e-6.
CLOSE = {"rtol": 1e-5, "atol": 8e-6}


def as_stored(x: NDArray[np.float32], cache: str) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """What a cache of this dtype holds, and its scales if it has any."""
    if cache == "int8":
        return reference.quantize_heads(x)
    return (reference.f32_to_bf16(x) if cache == "bfloat16" else x), None


@dataclass(frozen=True)
class Paged:
    """A batch over a shuffled cache. `lengths`: (queries, tokens) of each request."""

    lengths: tuple[tuple[int, int], ...]
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 20
    block_size: int = 4
    cache: str = "float32"

    def arguments(self) -> dict[str, Any]:
        blocks = [-(-tokens // self.block_size) for _, tokens in self.lengths]
        count = sum(blocks) + 3
        table_RB = np.full((len(self.lengths), max(blocks, default=0)), -1, np.int32)
        ids = np.random.default_rng(1).permutation(count).astype(np.int32)
        for r, n in enumerate(blocks):
            table_RB[r, :n], ids = ids[:n], ids[n:]
        shape = (count, self.kv_heads, self.block_size, self.head_dim)
        key, key_scales = as_stored(normal(*shape, seed=2), self.cache)
        value, value_scales = as_stored(normal(*shape, seed=3), self.cache)
        queries = [q for q, _ in self.lengths]
        return {
            "q_TNH": normal(sum(queries), self.heads, self.head_dim),
            "key_cache_CMHS": np.ascontiguousarray(key.swapaxes(2, 3)),
            "value_cache_CMSH": value,
            "block_table_RB": table_RB,
            "query_start_loc_R1": np.cumsum([0, *queries], dtype=np.int32),
            "seq_lens_R": np.array([tokens for _, tokens in self.lengths], np.int32),
            "scale": self.head_dim**-0.5,
            "key_scales_CMS": key_scales,
            "value_scales_CMS": value_scales,
        }


MIXED = Paged(lengths=((1, 1), (1, 130), (17, 17), (3, 70), (0, 0), (64, 65), (2, 64), (2, 600)))


@each_isa
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("cache", CACHES)
def test_paged_attention_equals_the_reference(isa: str, head_dim: int, cache: str) -> None:
    good = replace(MIXED, head_dim=head_dim, cache=cache).arguments()
    # The reference cannot take a request of no tokens (a maximum over nothing); ours must, and it owns no row.
    without = replace(MIXED, lengths=tuple(pair for pair in MIXED.lengths if pair[1])).arguments()
    keep = [r for r, (_, tokens) in enumerate(MIXED.lengths) if tokens]
    expected = reference.paged_attention(
        **{
            **good,
            "block_table_RB": good["block_table_RB"][keep],
            "query_start_loc_R1": without["query_start_loc_R1"],
            "seq_lens_R": without["seq_lens_R"],
        }
    )
    np.testing.assert_allclose(kernels.paged_attention(**good, isa=isa), expected, **CLOSE)


@each_isa
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (20, 4), (7, 1), (160, 2)])
@pytest.mark.parametrize("block_size", [1, 7, 16, 32, 80, 200])
def test_any_grouping_of_heads_and_any_block_size(isa: str, heads: int, kv_heads: int, block_size: int) -> None:
    case = Paged(lengths=((5, 70), (1, 3)), heads=heads, kv_heads=kv_heads, block_size=block_size)
    good = case.arguments()
    np.testing.assert_allclose(kernels.paged_attention(**good, isa=isa), reference.paged_attention(**good), **CLOSE)


@each_isa
def test_no_requests_give_no_rows(isa: str) -> None:
    assert kernels.paged_attention(**Paged(lengths=()).arguments(), isa=isa).shape == (0, 6, 20)


@each_isa
@pytest.mark.parametrize("threads", [1, 3])
def test_a_query_is_the_same_alone_in_chunks_in_a_batch_and_on_any_threads(isa: str, threads: int) -> None:
    good = Paged(lengths=((150, 150), (9, 40))).arguments()
    whole = kernels.paged_attention(**good, isa=isa)
    before = kernels.num_threads()
    kernels.set_num_threads(threads)
    try:
        for chunk in (1, 7, 64):
            for begin in range(0, 150, chunk):
                end = min(begin + chunk, 150)
                part = kernels.paged_attention(
                    **{
                        **good,
                        "q_TNH": good["q_TNH"][begin:end],
                        "block_table_RB": good["block_table_RB"][:1],
                        "query_start_loc_R1": np.array([0, end - begin], np.int32),
                        "seq_lens_R": np.array([end], np.int32),
                    },
                    isa=isa,
                )
                np.testing.assert_array_equal(part, whole[begin:end])
    finally:
        kernels.set_num_threads(before)


@each_isa
def test_large_scores_and_far_apart_ones(isa: str) -> None:
    good = Paged(lengths=((70, 140),)).arguments()
    good["q_TNH"] = good["q_TNH"] * np.float32(300)
    np.testing.assert_allclose(
        kernels.paged_attention(**good, isa=isa), reference.paged_attention(**good), rtol=1e-3, atol=1e-3
    )


@each_isa
def test_nan_is_not_hidden(isa: str) -> None:
    good = Paged(lengths=((2, 10),)).arguments()
    good["q_TNH"][1] = np.nan
    out = kernels.paged_attention(**good, isa=isa)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1]).all()


@each_isa
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("lengths", [(), (1,), (64,), (65, 0, 3), (2, 130, 17)])
def test_varlen_attention_equals_the_reference(isa: str, head_dim: int, lengths: tuple[int, ...]) -> None:
    bounds = np.cumsum([0, *lengths], dtype=np.int32)
    q, k, v = (normal(int(bounds[-1]), 3, head_dim, seed=s) for s in range(3))
    expected = reference.varlen_attention(q, k, v, np.cumsum([0, *filter(None, lengths)], dtype=np.int32), 0.3)
    np.testing.assert_allclose(kernels.varlen_attention(q, k, v, bounds, 0.3, isa=isa), expected, **CLOSE)


def test_exp_is_accurate_over_its_whole_range() -> None:
    # One query of head 0 over two keys: scores 0 and -d, so that the output tells exp(-d) / (1 + exp(-d)).
    gaps = np.linspace(0.0, 86.0, 500, dtype=np.float32)
    q = np.zeros((1000, 1, 8), np.float32)
    q[:, 0, 0] = np.repeat(gaps, 2)
    k, v = np.zeros_like(q), np.zeros_like(q)
    k[1::2, 0, 0], v[1::2, 0, 0] = -1.0, 1.0
    bounds = np.arange(0, 1001, 2, dtype=np.int32)
    exact = np.exp(-gaps.astype(np.float64))
    exact = exact / (1 + exact)
    for isa in kernels.supported_isas():
        actual = kernels.varlen_attention(q, k, v, bounds, 1.0, isa=isa)[::2, 0, 0]
        np.testing.assert_allclose(actual, exact, rtol=4e-7)


def empty_cache(blocks: int, block_size: int, kv_heads: int, head_dim: int, cache: str) -> dict[str, Any]:
    dtype: Any = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}[cache]
    shape = (blocks, kv_heads, block_size)
    scales = [np.full(shape, 77, np.float32) if cache == "int8" else None for _ in range(2)]
    return {
        "key_cache_CMHS": np.full((blocks, kv_heads, head_dim, block_size), 77, dtype),
        "value_cache_CMSH": np.full((*shape, head_dim), 77, dtype),
        "key_scales_CMS": scales[0],
        "value_scales_CMS": scales[1],
    }


def assert_equal_caches(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("cache", CACHES)
def test_store_kv_equals_the_reference_and_touches_nothing_else(cache: str) -> None:
    key, value = normal(5, 2, 12), normal(5, 2, 12, seed=1)
    key[1, 0], key[2, 1, 3], value[3, 0, 0] = 0.0, np.nan, np.inf
    slots = np.array([0, 11, 3, 7, 4], np.int64)
    ours, theirs = empty_cache(3, 4, 2, 12, cache), empty_cache(3, 4, 2, 12, cache)
    kernels.store_kv(key, value, slots, **ours)
    reference.store_kv(key, value, slots, **theirs)
    assert_equal_caches(ours, theirs)
    kernels.store_kv(key[:0], value[:0], slots[:0], **ours)


def test_an_int8_head_is_off_by_half_a_step_at_most() -> None:
    key = normal(64, 4, 80) * np.float32(3)
    cache = empty_cache(4, 16, 4, 80, "int8")
    kernels.store_kv(key, key, np.arange(64), **cache)
    read = cache["key_cache_CMHS"].swapaxes(2, 3) * cache["key_scales_CMS"][..., None]
    error = np.abs(read.swapaxes(1, 2).reshape(key.shape) - key)
    assert (error <= 0.5001 * np.abs(key).max(axis=-1, keepdims=True) / 127).all()


@each_isa
def test_damage_in_an_int8_cache_is_not_hidden(isa: str) -> None:
    good = Paged(lengths=((1, 10), (1, 10)), cache="int8").arguments()
    good["value_scales_CMS"][good["block_table_RB"][1, 0], :, 0] = np.nan
    out = kernels.paged_attention(**good, isa=isa)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1, :3]).all()


def fused(case: Paged, isa: str | None, op: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """A layer's attention over queries, keys and values side by side; also the arrays it wrote."""
    good = case.arguments()
    tokens = len(good.pop("q_TNH"))
    slots = []
    for r, (queries, length) in enumerate(case.lengths):
        positions = np.arange(length - queries, length)
        blocks = good["block_table_RB"][r, positions // case.block_size]
        slots.append(blocks.astype(np.int64) * case.block_size + positions % case.block_size)
    angles = normal(tokens, case.head_dim // 2, seed=7)
    good |= {
        "qkv_TX": normal(tokens, (case.heads + 2 * case.kv_heads) * case.head_dim, seed=8),
        "cos_TP": np.cos(angles),
        "sin_TP": np.sin(angles),
        "slot_mapping_T": np.concatenate(slots),
        "num_heads": case.heads,
    }
    out = op(**good) if isa is None else op(**good, isa=isa)
    written = ("qkv_TX", "key_cache_CMHS", "value_cache_CMSH", "key_scales_CMS", "value_scales_CMS")
    return out, {name: good[name] for name in written if good[name] is not None}


@each_isa
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("lengths", [((1, 300),), ((5, 40), (1, 1), (30, 30))])
def test_a_layers_attention_in_one_call(isa: str, cache: str, lengths: tuple[tuple[int, int], ...]) -> None:
    case = Paged(lengths=lengths, head_dim=64, cache=cache)
    actual, ours = fused(case, isa, kernels.rotary_paged_attention)
    expected, theirs = fused(case, None, reference.rotary_paged_attention)
    np.testing.assert_allclose(ours.pop("qkv_TX"), theirs.pop("qkv_TX"), rtol=1e-6, atol=1e-6)
    if cache == "float32":
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name], rtol=1e-6, atol=1e-6, err_msg=name)
    # A turned key that is off by its last bit may round to the neighbouring step of the cache.
    loose = {"float32": CLOSE, "bfloat16": {"rtol": 1e-2, "atol": 1e-2}, "int8": {"rtol": 2e-2, "atol": 2e-2}}[cache]
    np.testing.assert_allclose(actual, expected, **loose)


@each_isa
@pytest.mark.parametrize("head_dim", [2, 8, 20, 80, 128])
@pytest.mark.parametrize("lengths", [(1,), (64,), (65, 0, 3), (2, 330, 17)])
def test_attention_on_bfloat16_pairs(isa: str, head_dim: int, lengths: tuple[int, ...]) -> None:
    bounds = np.cumsum([0, *lengths], dtype=np.int32)
    q, k, v = (normal(int(bounds[-1]), 3, head_dim, seed=s) for s in range(3))
    whole = np.cumsum([0, *filter(None, lengths)], dtype=np.int32)
    actual = kernels.varlen_attention(q, k, v, bounds, head_dim**-0.5, round_to_bf16=True, isa=isa)
    rounded = reference.varlen_attention(q, k, v, whole, head_dim**-0.5, round_to_bf16=True)
    exact = reference.varlen_attention(q, k, v, whole, head_dim**-0.5)
    # Weights and values carry 2^-9 each, scores 2^-8 of |q||k|; where there is no such product nothing is rounded.
    np.testing.assert_allclose(actual, exact, rtol=0.01, atol=0.02)
    assert np.abs(actual - exact).max() <= 2 * np.abs(rounded - exact).max() + 1e-5


@each_isa
@pytest.mark.parametrize("round_to_bf16", [False, True])
def test_a_vision_blocks_attention_in_one_call(isa: str, round_to_bf16: bool) -> None:
    heads, head_dim, bounds = 3, 40, np.array([0, 70, 75], np.int32)
    angles = normal(75, head_dim // 2, seed=7)
    qkv = normal(75, 3 * heads * head_dim)
    arguments = (np.cos(angles), np.sin(angles), bounds, 0.2, heads)
    expected = reference.rotary_varlen_attention(qkv.copy(), *arguments)
    actual = kernels.rotary_varlen_attention(qkv, *arguments, round_to_bf16=round_to_bf16, isa=isa)
    tolerance: dict[str, float] = {"rtol": 0.01, "atol": 0.02} if round_to_bf16 else CLOSE
    np.testing.assert_allclose(actual, expected, **tolerance)


@pytest.mark.parametrize("name", ["key_scales_CMS", "value_scales_CMS"])
def test_bad_scales_are_refused(name: str) -> None:
    good = Paged(lengths=((2, 18),), cache="int8").arguments()
    with pytest.raises(TypeError, match=rf"{name} is float64"):
        kernels.paged_attention(**{**good, name: good[name].astype(np.float64)})
    with pytest.raises(ValueError, match=rf"{name} has shape"):
        kernels.paged_attention(**{**good, name: good[name][:, :, :1].copy()})


def test_scales_belong_to_int8_caches_alone() -> None:
    good = Paged(lengths=((2, 18),), cache="int8").arguments()
    with pytest.raises(ValueError, match=r"key_scales_CMS and value_scales_CMS are None; an int8 cache needs both"):
        kernels.paged_attention(**{**good, "key_scales_CMS": None, "value_scales_CMS": None})
    plain = Paged(lengths=((2, 18),)).arguments()
    with pytest.raises(ValueError, match=r"are given; an int8 cache needs both, others take neither"):
        kernels.paged_attention(**{**plain, "key_scales_CMS": good["key_scales_CMS"]})


@pytest.mark.parametrize("slot", [-1, 12, 2**40])
def test_store_kv_refuses_a_slot_outside_the_cache_and_writes_nothing(slot: int) -> None:
    caches = [np.zeros((3, 2, 12, 4), np.float32), np.zeros((3, 2, 4, 12), np.float32)]
    with pytest.raises(ValueError, match=rf"slot_mapping_T\[1\] is {slot}; expected a slot from 0 to 11"):
        kernels.store_kv(normal(2, 2, 12), normal(2, 2, 12), np.array([0, slot], np.int64), *caches)
    assert not caches[0].any()


def set_item(array: NDArray[Any], index: Any, value: int) -> NDArray[Any]:
    changed = array.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("block_table_RB", (0, 1), 99, r"block_table_RB\[0\] is 99 at column 1; expected a block from 0 to"),
        ("block_table_RB", (1, 0), -1, r"block_table_RB\[1\] is -1 at column 0"),
        ("seq_lens_R", 0, 21, r"seq_lens_R\[0\] is 21; expected .* at most the 20 tokens"),
        ("seq_lens_R", 1, 2, r"seq_lens_R\[1\] is 2; expected at least its 3 queries"),
        ("seq_lens_R", 1, -1, r"seq_lens_R\[1\] is -1"),
        ("query_start_loc_R1", 0, 1, r"query_start_loc_R1\[0\] is 1; expected 0"),
        ("query_start_loc_R1", 1, 9, r"query_start_loc_R1\[2\] is 5, less than the 9"),
        ("query_start_loc_R1", 2, 4, r"query_start_loc_R1\[2\] is 4; expected 5"),
        ("query_start_loc_R1", 2, 2**31 - 1, r"expected 5, the rows of q_TNH"),
    ],
)
def test_paged_attention_never_follows_an_index_out_of_its_array(
    name: str, index: Any, value: int, message: str
) -> None:
    good = Paged(lengths=((2, 18), (3, 9))).arguments()
    with pytest.raises(ValueError, match=message):
        kernels.paged_attention(**{**good, name: set_item(good[name], index, value)})


@pytest.mark.parametrize("bounds", [[], [1, 4], [0, 3], [0, 5], [0, 3, 2, 4], [0, -1, 4]])
def test_varlen_attention_refuses_bounds_that_do_not_tile_the_tokens(bounds: list[int]) -> None:
    x = normal(4, 2, 8)
    with pytest.raises(ValueError, match="cu_seqlens"):
        kernels.varlen_attention(x, x, x, np.array(bounds, np.int32), 1.0)


def test_bad_arrays_are_refused() -> None:
    good = Paged(lengths=((2, 18), (3, 9))).arguments()
    assert_refuses_bad_arrays(kernels.paged_attention, {**good, "out": np.empty_like(good["q_TNH"])})
    x = normal(4, 2, 8)
    stored = {"key_TMH": x, "value_TMH": x.copy(), "slot_mapping_T": np.arange(4)}
    assert_refuses_bad_arrays(kernels.store_kv, {**stored, **empty_cache(2, 4, 2, 8, "float32")})
    fuse = {
        "qkv_TX": normal(5, 200),
        "cos_TP": normal(5, 10),
        "sin_TP": normal(5, 10),
        "slot_mapping_T": np.arange(5),
        "num_heads": 6,
        "out": normal(5, 6, 20),
    }
    assert_refuses_bad_arrays(
        kernels.rotary_paged_attention, {name: v for name, v in (good | fuse).items() if name != "q_TNH"}
    )


def test_bad_segments_are_refused() -> None:
    x = normal(4, 2, 8)
    segments = {"q_TNH": x, "k_TNH": x.copy(), "v_TNH": x.copy(), "cu_seqlens": np.array([0, 4], np.int32)}
    assert_refuses_bad_arrays(kernels.varlen_attention, {**segments, "scale": 1.0, "out": np.empty_like(x)})
    fuse = {
        "qkv_TX": normal(4, 48),
        "cos_TP": normal(4, 4),
        "sin_TP": normal(4, 4),
        "cu_seqlens": segments["cu_seqlens"],
    }
    rest = {"scale": 1.0, "num_heads": 2, "out": np.empty_like(x)}
    assert_refuses_bad_arrays(kernels.rotary_varlen_attention, {**fuse, **rest})


def test_heads_must_divide_into_groups_and_caches_agree() -> None:
    good = Paged(lengths=((2, 18),)).arguments()
    with pytest.raises(ValueError, match="q_TNH has 5 heads and key_cache_CMHS 2"):
        kernels.paged_attention(**{**good, "q_TNH": good["q_TNH"][:, :5].copy()})
    with pytest.raises(TypeError, match="value_cache_CMSH is uint16"):
        kernels.paged_attention(**{**good, "value_cache_CMSH": reference.f32_to_bf16(good["value_cache_CMSH"])})
    with pytest.raises(ValueError, match="out shares memory with q_TNH"):
        kernels.paged_attention(**good, out=good["q_TNH"])
