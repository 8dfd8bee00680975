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
# A score is a chain of head_dim roundings, an exp is within 2 units in the last place, then up to 200 weighted values are
# summed; against float64 the reference is off by 3e-6 here, the native kernels by 5e-6.
CLOSE = {"rtol": 1e-5, "atol": 8e-6}


@dataclass(frozen=True)
class Paged:
    """A batch over a shuffled cache. `lengths`: (queries, tokens) of each request."""

    lengths: tuple[tuple[int, int], ...]
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 20
    block_size: int = 4
    bf16: bool = False

    def arguments(self) -> dict[str, Any]:
        blocks = [-(-tokens // self.block_size) for _, tokens in self.lengths]
        count = sum(blocks) + 3
        table_RB = np.full((len(self.lengths), max(blocks, default=0)), -1, np.int32)
        ids = np.random.default_rng(1).permutation(count).astype(np.int32)
        for r, n in enumerate(blocks):
            table_RB[r, :n], ids = ids[:n], ids[n:]
        cache = (count, self.block_size, self.kv_heads, self.head_dim)
        key, value = normal(*cache, seed=2), normal(*cache, seed=3)
        queries = [q for q, _ in self.lengths]
        return {
            "q_TNH": normal(sum(queries), self.heads, self.head_dim),
            "key_cache_CSMH": reference.f32_to_bf16(key) if self.bf16 else key,
            "value_cache_CSMH": reference.f32_to_bf16(value) if self.bf16 else value,
            "block_table_RB": table_RB,
            "query_start_loc_R1": np.cumsum([0, *queries], dtype=np.int32),
            "seq_lens_R": np.array([tokens for _, tokens in self.lengths], np.int32),
            "scale": self.head_dim**-0.5,
        }


MIXED = Paged(lengths=((1, 1), (1, 130), (17, 17), (3, 70), (0, 0), (64, 65), (2, 64)))


@each_isa
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("bf16", [False, True])
def test_paged_attention_equals_the_reference(isa: str, head_dim: int, bf16: bool) -> None:
    good = replace(MIXED, head_dim=head_dim, bf16=bf16).arguments()
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
@pytest.mark.parametrize("block_size", [1, 16, 200])
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


@pytest.mark.parametrize("bf16", [False, True])
def test_store_kv_equals_the_reference_and_touches_nothing_else(bf16: bool) -> None:
    dtype = np.uint16 if bf16 else np.float32
    key, value = normal(5, 2, 12), normal(5, 2, 12, seed=1)
    slots = np.array([0, 11, 3, 7, 4], np.int64)
    ours = [np.full((3, 4, 2, 12), 77, dtype) for _ in range(2)]
    theirs = [cache.copy() for cache in ours]
    kernels.store_kv(key, value, slots, *ours)
    reference.store_kv(key, value, slots, *theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    kernels.store_kv(key[:0], value[:0], slots[:0], *ours)


@pytest.mark.parametrize("slot", [-1, 12, 2**40])
def test_store_kv_refuses_a_slot_outside_the_cache_and_writes_nothing(slot: int) -> None:
    caches = [np.zeros((3, 4, 2, 12), np.float32) for _ in range(2)]
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
    segments = {"q_TNH": x, "k_TNH": x.copy(), "v_TNH": x.copy(), "cu_seqlens": np.array([0, 4], np.int32)}
    assert_refuses_bad_arrays(kernels.varlen_attention, {**segments, "scale": 1.0, "out": np.empty_like(x)})
    cache = np.zeros((2, 4, 2, 8), np.float32)
    stored = {"key_TMH": x, "value_TMH": x.copy(), "slot_mapping_T": np.arange(4)}
    assert_refuses_bad_arrays(
        kernels.store_kv, {**stored, "key_cache_CSMH": cache, "value_cache_CSMH": np.zeros_like(cache)}
    )


def test_heads_must_divide_into_groups_and_caches_agree() -> None:
    good = Paged(lengths=((2, 18),)).arguments()
    with pytest.raises(ValueError, match="q_TNH has 5 heads and key_cache_CSMH 2"):
        kernels.paged_attention(**{**good, "q_TNH": good["q_TNH"][:, :5].copy()})
    with pytest.raises(TypeError, match="value_cache_CSMH is uint16"):
        kernels.paged_attention(**{**good, "value_cache_CSMH": reference.f32_to_bf16(good["value_cache_CSMH"])})
    with pytest.raises(ValueError, match="out shares memory with q_TNH"):
        kernels.paged_attention(**good, out=good["q_TNH"])
