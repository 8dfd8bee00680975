"""Attention over the paged cache (decoder) and inside segments (vision tower), and the writing of the cache.

Keys are met in spans, so no score matrix is held, and a query's result depends on its own keys alone: not on the other
requests, on how a prompt was cut into chunks, on the block size or on the threads. It differs in the last bits from one
instruction set to another. Caches are float32, bfloat16 (uint16 bits) or int8 with one float32 scale a token and
head (`*_scales_CMS`, None otherwise). Keys lie on their side in each block, [M, H, S], so that a vector holds one
element of neighbouring tokens; where S is a multiple of 16 they are read where they lie, else copied together first.
Raises TypeError for a wrong dtype or a gap in memory; ValueError for a wrong shape and for any length, block id or slot
that points outside its array. Shape letters: `tusi.kernels.reference`.
"""

from __future__ import annotations

import numpy as np

from tusi.kernels import _native
from tusi.kernels.reference import F32, I32, I64, KVArray


def store_kv(
    key_TMH: F32,
    value_TMH: F32,
    slot_mapping_T: I64,
    key_cache_CMHS: KVArray,
    value_cache_CMSH: KVArray,
    key_scales_CMS: F32 | None = None,
    value_scales_CMS: F32 | None = None,
) -> None:
    """Write each token's key and value to its slot (block * S + offset), rounding if the cache is bfloat16 or int8.

    If two tokens name the same slot, the later one stays. On an error nothing has been written.
    """
    _native.store_kv(
        key_TMH, value_TMH, slot_mapping_T, key_cache_CMHS, value_cache_CMSH, key_scales_CMS, value_scales_CMS
    )


def paged_attention(
    q_TNH: F32,
    key_cache_CMHS: KVArray,
    value_cache_CMSH: KVArray,
    block_table_RB: I32,
    query_start_loc_R1: I32,
    seq_lens_R: I32,
    scale: float,
    *,
    key_scales_CMS: F32 | None = None,
    value_scales_CMS: F32 | None = None,
    out: F32 | None = None,
    isa: str | None = None,
) -> F32:
    """Causal grouped-query attention over a paged cache; returns [T, N, H].

    Request r owns queries query_start_loc[r]..[r+1]; they are the last ones of its seq_lens[r] tokens, whose keys and
    values already lie in the blocks that its row of block_table names. Query head n reads KV head n // (N / M).
    """
    out = np.empty(q_TNH.shape, np.float32) if out is None else out
    _native.paged_attention(
        q_TNH,
        key_cache_CMHS,
        value_cache_CMSH,
        block_table_RB,
        query_start_loc_R1,
        seq_lens_R,
        scale,
        key_scales_CMS,
        value_scales_CMS,
        out,
        isa,
    )
    return out


def rotary_paged_attention(
    qkv_TX: F32,
    cos_TP: F32,
    sin_TP: F32,
    slot_mapping_T: I64,
    key_cache_CMHS: KVArray,
    value_cache_CMSH: KVArray,
    block_table_RB: I32,
    query_start_loc_R1: I32,
    seq_lens_R: I32,
    scale: float,
    num_heads: int,
    *,
    key_scales_CMS: F32 | None = None,
    value_scales_CMS: F32 | None = None,
    out: F32 | None = None,
    isa: str | None = None,
) -> F32:
    """A decoder layer's attention in one call: rotary_interleaved, store_kv, paged_attention; returns [T, N, H].

    qkv_TX: the N query heads, M key heads and M value heads of each token, side by side. Its queries and keys are
    turned in place. Everything else as in the three ops.
    """
    if out is None:
        out = np.empty((len(qkv_TX), num_heads, key_cache_CMHS.shape[2]), np.float32)
    _native.rotary_paged_attention(
        qkv_TX,
        cos_TP,
        sin_TP,
        slot_mapping_T,
        key_cache_CMHS,
        value_cache_CMSH,
        block_table_RB,
        query_start_loc_R1,
        seq_lens_R,
        scale,
        key_scales_CMS,
        value_scales_CMS,
        out,
        isa,
    )
    return out


def varlen_attention(
    q_TNH: F32,
    k_TNH: F32,
    v_TNH: F32,
    cu_seqlens: I32,
    scale: float,
    *,
    round_to_bf16: bool = False,
    out: F32 | None = None,
    isa: str | None = None,
) -> F32:
    """Full (non-causal) attention inside each segment cu_seqlens[i]..cu_seqlens[i+1]; returns [T, N, H].

    round_to_bf16: q * scale, k, v and the softmax weights may be rounded to bfloat16 (sums stay float32), which is
    twice as fast where the processor has such a dot product; where it has none, nothing is rounded.
    """
    out = np.empty(q_TNH.shape, np.float32) if out is None else out
    _native.varlen_attention(q_TNH, k_TNH, v_TNH, cu_seqlens, scale, round_to_bf16, out, isa)
    return out


def rotary_varlen_attention(
    qkv_TX: F32,
    cos_TP: F32,
    sin_TP: F32,
    cu_seqlens: I32,
    scale: float,
    num_heads: int,
    *,
    round_to_bf16: bool = False,
    out: F32 | None = None,
    isa: str | None = None,
) -> F32:
    """A vision block's attention in one call: rotary_half, varlen_attention; returns [T, N, H].

    qkv_TX: the query, key and value heads of each token, N of each, side by side. Its queries and keys are turned in
    place.
    """
    if out is None:
        out = np.empty((len(qkv_TX), num_heads, qkv_TX.shape[1] // (3 * num_heads)), np.float32)
    _native.rotary_varlen_attention(qkv_TX, cos_TP, sin_TP, cu_seqlens, scale, round_to_bf16, out, isa)
    return out
