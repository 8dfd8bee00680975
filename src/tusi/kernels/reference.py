"""The slow twin of every kernel, in NumPy: the definition that the native ones are tested against.

Same names, same arguments, same results as `tusi.kernels`, for clarity only. Shape letters: T tokens, K and N the
inner and outer width of a matrix, D hidden, F intermediate, H head dim, N query heads, M KV heads, P = H/2 rotary
pairs, G groups along K, R requests, S block size, C blocks of the cache, E experts. bfloat16 is kept as uint16 bits.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]
I8 = NDArray[np.int8]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
KVArray = F32 | U16 | I8
"""Keys or values as a cache stores them."""


def bf16_to_f32(bits: U16) -> F32:
    """Widen bfloat16 bits; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: F32) -> U16:
    """Round to bfloat16 bits, to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def gemm_f32(
    x_TK: F32,
    weight_NK: F32,
    *,
    bias_N: F32 | None = None,
    norm_K: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
) -> F32:
    """x @ weight.T + bias, of the normalised x if there is a norm, added to `out` if asked."""
    normed_TK = x_TK if norm_K is None else rms_norm(x_TK, norm_K, eps)
    product_TN: F32 = normed_TK @ weight_NK.T
    if bias_N is not None:
        product_TN = product_TN + bias_N
    if out is None:
        return product_TN
    out[...] = out + product_TN if add else product_TN
    return out


def gemm_bf16(
    x_TK: F32,
    weight_NK: U16,
    *,
    bias_N: F32 | None = None,
    norm_K: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
) -> F32:
    """The same with bfloat16 weights: activations and sums are float32."""
    return gemm_f32(x_TK, bf16_to_f32(weight_NK), bias_N=bias_N, norm_K=norm_K, eps=eps, add=add, out=out)


def rms_norm(x_TD: F32, weight_D: F32, eps: float) -> F32:
    """weight * x / sqrt(mean(x^2) + eps)"""
    mean_square: F32 = np.mean(x_TD * x_TD, axis=-1, keepdims=True)
    out: F32 = weight_D * (x_TD / np.sqrt(mean_square + np.float32(eps)))
    return out


def layer_norm(x_TD: F32, weight_D: F32, bias_D: F32, eps: float) -> F32:
    """weight * (x - mean) / sqrt(var + eps) + bias"""
    centred: F32 = x_TD - np.mean(x_TD, axis=-1, keepdims=True)
    variance: F32 = np.mean(centred * centred, axis=-1, keepdims=True)
    out: F32 = weight_D * (centred / np.sqrt(variance + np.float32(eps))) + bias_D
    return out


def silu_and_mul(gate_up_T2F: F32) -> F32:
    """silu(first half) * second half"""
    gate, up = np.split(gate_up_T2F, 2, axis=-1)
    out: F32 = gate * _sigmoid(gate) * up
    return out


def gelu(x: F32) -> F32:
    """The exact GELU: x/2 * (1 + erf(x / sqrt 2))."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    out: F32 = (0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))).astype(np.float32)
    return out


def quick_gelu(x: F32) -> F32:
    """x * sigmoid(1.702 x)"""
    out: F32 = x * _sigmoid(np.float32(1.702) * x)
    return out


def rotary_interleaved(x_TNH: F32, cos_TP: F32, sin_TP: F32) -> F32:
    """Rotate pairs (2j, 2j+1) of each head by angle j (GPT-J order)."""
    even, odd = x_TNH[..., 0::2], x_TNH[..., 1::2]
    cos, sin = cos_TP[:, None, :], sin_TP[:, None, :]
    out = np.empty_like(x_TNH)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = odd * cos + even * sin
    return out


def rotary_half(x_TNH: F32, cos_TP: F32, sin_TP: F32) -> F32:
    """Rotate pairs (j, j + H/2) of each head by angle j (NeoX order)."""
    first, second = np.split(x_TNH, 2, axis=-1)
    cos, sin = cos_TP[:, None, :], sin_TP[:, None, :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def store_kv(
    key_TMH: F32,
    value_TMH: F32,
    slot_mapping_T: I64,
    key_cache_CMHS: KVArray,
    value_cache_CMSH: KVArray,
    key_scales_CMS: F32 | None = None,
    value_scales_CMS: F32 | None = None,
) -> None:
    """Write each token's key and value to its slot (block * S + offset), rounding if the cache is bfloat16 or int8."""
    size = value_cache_CMSH.shape[2]
    blocks_T, offsets_T = slot_mapping_T // size, slot_mapping_T % size
    for cache_CMSH, scales_CMS, rows_TMH in (
        (key_cache_CMHS.swapaxes(2, 3), key_scales_CMS, key_TMH),
        (value_cache_CMSH, value_scales_CMS, value_TMH),
    ):
        if scales_CMS is not None:
            cache_CMSH[blocks_T, :, offsets_T], scales_CMS[blocks_T, :, offsets_T] = quantize_heads(rows_TMH)
        else:
            stored_TMH = f32_to_bf16(rows_TMH) if cache_CMSH.dtype == np.uint16 else rows_TMH
            cache_CMSH[blocks_T, :, offsets_T] = stored_TMH


def quantize_heads(x_TMH: F32) -> tuple[I8, F32]:
    """int8 values and one scale a token and head: max |x| / 127; x is about value * scale.

    A head with NaN or infinity becomes zeros with scale NaN: all of it reads as NaN.
    """
    scales_TM = np.abs(x_TMH).max(axis=-1) / np.float32(127.0)
    scales_TM[~np.isfinite(x_TMH).all(axis=-1)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        q_TMH = np.clip(np.rint(x_TMH / scales_TM[..., None]), -127, 127)
    return np.nan_to_num(q_TMH).astype(np.int8), scales_TM


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
) -> F32:
    """Causal grouped-query attention over a paged cache.

    Request r owns queries query_start_loc[r]..[r+1]; they are the last ones of its seq_lens[r] tokens, whose keys and
    values already lie in the blocks that its row of block_table names. Query head n reads KV head n // (N / M).
    """
    out = np.empty_like(q_TNH)
    for r, seq_len in enumerate(seq_lens_R):
        begin, end = query_start_loc_R1[r], query_start_loc_R1[r + 1]
        keys = _gather(key_cache_CMHS.swapaxes(2, 3), key_scales_CMS, block_table_RB[r], int(seq_len))
        values = _gather(value_cache_CMSH, value_scales_CMS, block_table_RB[r], int(seq_len))
        first = int(seq_len) - int(end - begin)
        mask = np.arange(seq_len)[None, :] > (first + np.arange(end - begin))[:, None]
        out[begin:end] = _attend(q_TNH[begin:end], keys, values, scale, mask)
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
) -> F32:
    """Turn queries and keys of qkv (in place), store keys and values, attend."""
    kv_heads, head_dim = key_cache_CMHS.shape[1:3]
    heads = qkv_TX.reshape(len(qkv_TX), num_heads + 2 * kv_heads, head_dim)
    turned = heads[:, : num_heads + kv_heads]
    turned[...] = rotary_interleaved(turned, cos_TP, sin_TP)
    key_TMH, value_TMH = turned[:, num_heads:], heads[:, num_heads + kv_heads :]
    caches = (key_cache_CMHS, value_cache_CMSH)
    store_kv(key_TMH, value_TMH, slot_mapping_T, *caches, key_scales_CMS, value_scales_CMS)
    return paged_attention(
        turned[:, :num_heads],
        *caches,
        block_table_RB,
        query_start_loc_R1,
        seq_lens_R,
        scale,
        key_scales_CMS=key_scales_CMS,
        value_scales_CMS=value_scales_CMS,
    )


def varlen_attention(
    q_TNH: F32, k_TNH: F32, v_TNH: F32, cu_seqlens: I32, scale: float, *, round_to_bf16: bool = False
) -> F32:
    """Full (non-causal) attention inside each segment cu_seqlens[i]..cu_seqlens[i+1].

    round_to_bf16: q * scale, k, v and the weights before they are divided by their sum are rounded to bfloat16. (The
    native kernel folds a factor of log2(e) into q as well, so that it rounds other values, by as much.)
    """
    out = np.empty_like(q_TNH)
    for begin, end in itertools.pairwise(cu_seqlens):
        segment = slice(int(begin), int(end))
        out[segment] = _attend(q_TNH[segment], k_TNH[segment], v_TNH[segment], scale, None, round_to_bf16)
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
) -> F32:
    """Turn queries and keys of qkv (in place), attend inside each segment."""
    qkv_TJNH = qkv_TX.reshape(len(qkv_TX), 3, num_heads, -1)
    for part in (0, 1):
        qkv_TJNH[:, part] = rotary_half(qkv_TJNH[:, part], cos_TP, sin_TP)
    q, k, v = (qkv_TJNH[:, part] for part in range(3))
    return varlen_attention(q, k, v, cu_seqlens, scale, round_to_bf16=round_to_bf16)


def topk_softmax(logits_TE: F32, bias_E: F32, k: int, norm_min: float) -> tuple[F32, I32]:
    """The router: softmax in float32, choose by probability + bias, weigh by probability renormalised over the chosen.

    Returns weights [T, K] and expert ids [T, K], best first.
    """
    shifted = np.exp(logits_TE - logits_TE.max(axis=-1, keepdims=True))
    probs_TE = shifted / shifted.sum(axis=-1, keepdims=True)
    ids_TK = np.argsort(-(probs_TE + bias_E), axis=-1, kind="stable")[:, :k]
    chosen_TK = np.take_along_axis(probs_TE, ids_TK, axis=-1)
    weights_TK = chosen_TK / np.maximum(chosen_TK.sum(axis=-1, keepdims=True), np.float32(norm_min))
    return weights_TK.astype(np.float32), ids_TK.astype(np.int32)


def _sigmoid(x: F32) -> F32:
    # exp of a positive number may overflow to inf; 1 / inf is the right answer.
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-x))).astype(np.float32)


def _gather(cache_CMSH: KVArray, scales_CMS: F32 | None, blocks_B: I32, seq_len: int) -> F32:
    """The first seq_len tokens of these blocks, widened: [tokens, M, H]."""
    _, kv_heads, size, head_dim = cache_CMSH.shape
    blocks_B = blocks_B[: -(-seq_len // size)]
    rows = cache_CMSH[blocks_B].swapaxes(1, 2).reshape(-1, kv_heads, head_dim)[:seq_len]
    if scales_CMS is not None:
        scales = scales_CMS[blocks_B].swapaxes(1, 2).reshape(-1, kv_heads)[:seq_len]
        return rows.astype(np.float32) * scales[..., None]
    return bf16_to_f32(rows.astype(np.uint16)) if rows.dtype == np.uint16 else rows.astype(np.float32)


def _rounded(x: F32) -> F32:
    return bf16_to_f32(f32_to_bf16(x))


def _attend(
    q_TNH: F32, k_SMH: F32, v_SMH: F32, scale: float, mask_TS: NDArray[np.bool_] | None, round_to_bf16: bool = False
) -> F32:
    group = q_TNH.shape[1] // k_SMH.shape[1]
    if round_to_bf16:
        q_TNH, k_SMH, v_SMH = _rounded(q_TNH * np.float32(scale)), _rounded(k_SMH), _rounded(v_SMH)
        scale = 1.0
    k_SNH = np.repeat(k_SMH, group, axis=1)
    v_SNH = np.repeat(v_SMH, group, axis=1)
    scores_NTS = np.einsum("tnh,snh->nts", q_TNH, k_SNH) * np.float32(scale)
    if mask_TS is not None:
        scores_NTS = np.where(mask_TS[None], -np.inf, scores_NTS)
    weights = np.exp(scores_NTS - scores_NTS.max(axis=-1, keepdims=True))
    total_NT1 = weights.sum(axis=-1, keepdims=True)
    weights = (_rounded(weights) if round_to_bf16 else weights) / total_NT1
    out: F32 = np.einsum("nts,snh->tnh", weights, v_SNH).astype(np.float32)
    return out
