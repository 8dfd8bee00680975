"""The slow twins of `kernels.packed` and `kernels.experts`, in NumPy: what the layout and the rounding mean.

Same names, same arguments, same results. With int8 activations results are the native ones bit for bit: integer sums
are exact, and every float32 step below is a step there, in this order. Shape letters: `reference`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tusi.kernels import reference
from tusi.kernels.experts import Experts, PlainExperts, Pool
from tusi.kernels.reference import F32, I8, I32, I64, U8, U16, bf16_to_f32, rms_norm, topk_softmax

BLOCK_ROWS = 16


def _places(k: int, group_size: int) -> tuple[I64, int]:
    """Where each column lies in a padded row, and how long that is: every group begins a chunk of eight."""
    columns = np.arange(k)
    padded = -(-group_size // 8) * 8
    places = columns // group_size * padded + columns % group_size
    return places, (-(-(int(places[-1]) + 1) // 8) * 8 if k else 0)


def pack_codes(codes_NK: I8, scales_NG: U16 | F32, group_size: int, bits: int) -> tuple[U8, U16 | F32]:
    """[N, K] codes to blocks of 16 rows and chunks of 8 columns; padding is the code 0."""
    n, k = codes_NK.shape
    blocks = -(-n // BLOCK_ROWS)
    places, width = _places(k, group_size)
    zero = 8 if bits == 4 else 128
    padded = np.full((blocks * BLOCK_ROWS, width), zero, np.uint8)
    padded[:n, places] = codes_NK.astype(np.int16) + zero
    chunks = padded.reshape(blocks, BLOCK_ROWS, width // 8, 2, 4)  # block, row, chunk, first or last four, column
    if bits == 4:
        codes = (chunks[:, :, :, 0] | chunks[:, :, :, 1] << 4).transpose(0, 2, 1, 3)
    else:
        codes = chunks.transpose(0, 2, 3, 1, 4)
    scales = np.zeros((blocks * BLOCK_ROWS, scales_NG.shape[1]), scales_NG.dtype)
    scales[:n] = scales_NG
    packed = scales.reshape(blocks, BLOCK_ROWS, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(codes), np.ascontiguousarray(packed)


def unpack_codes(codes: U8, scales: U16 | F32, n: int, k: int, group_size: int) -> tuple[I8, U16 | F32]:
    """The inverse of `pack_codes`."""
    blocks, chunks = codes.shape[:2]
    if codes.ndim == 4:
        zero, halves = 8, np.stack([codes & 15, codes >> 4], axis=2)  # block, chunk, half, row, column
    else:
        zero, halves = 128, codes
    padded = halves.transpose(0, 3, 1, 2, 4).reshape(blocks * BLOCK_ROWS, chunks * 8)
    codes_NK = (padded[:n, _places(k, group_size)[0]].astype(np.int16) - zero).astype(np.int8)
    scales_NG = scales.transpose(0, 2, 1).reshape(blocks * BLOCK_ROWS, -1)[:n]
    return codes_NK, np.ascontiguousarray(scales_NG)  # type: ignore[return-value]


def _widened(scales: U16 | F32) -> F32:
    return bf16_to_f32(scales) if scales.dtype == np.uint16 else scales  # type: ignore[arg-type,return-value]


def dequantize_packed(codes: U8, scales: U16 | F32, n: int, k: int, group_size: int) -> F32:
    codes_NK, scales_NG = unpack_codes(codes, scales, n, k, group_size)
    widened = _widened(scales_NG)
    out: F32 = codes_NK.astype(np.float32) * np.repeat(widened, group_size, axis=1)[:, :k]
    return out


def packed_rows(codes: U8, scales: U16 | F32, n: int, k: int, group_size: int, ids_T: I64) -> F32:
    return dequantize_packed(codes, scales, n, k, group_size)[ids_T]


def round_groups(x_TK: F32, group_size: int) -> tuple[I8, F32]:
    """Codes [T, K] and scales [T, G]: scale = largest / 127, code = rint(x * (127 / largest)).

    A group that is not finite has scale NaN; one below 2^-100 becomes zeros.
    """
    tokens, k = x_TK.shape
    groups = -(-k // group_size)
    padded = np.zeros((tokens, groups * group_size), np.float32)
    padded[:, :k] = x_TK
    groups_TGS = padded.reshape(tokens, groups, group_size)
    finite: NDArray[np.bool_] = np.isfinite(groups_TGS).all(axis=2)  # type: ignore[assignment]
    largest = np.abs(np.where(finite[:, :, None], groups_TGS, 0)).max(axis=2, initial=0.0).astype(np.float32)
    kept = largest >= np.float32(2.0**-100)
    factors = np.where(kept, np.float32(127) / np.where(kept, largest, np.float32(1)), np.float32(0))
    values = np.where(kept[:, :, None], groups_TGS, np.float32(0)) * factors[:, :, None]
    codes = np.rint(values).astype(np.int8).reshape(padded.shape)[:, :k]
    scales = np.where(finite, np.where(kept, largest / np.float32(127), np.float32(0)), np.float32(np.nan))
    return codes, scales.astype(np.float32)


def round_activations(x_TK: F32, group_size: int, bits: int) -> tuple[I8, F32, I32]:
    codes_TK, scales_TG = round_groups(x_TK, group_size)
    tokens, k = x_TK.shape
    places, width = _places(k, group_size)
    codes = np.zeros((tokens, width), np.int8)
    codes[:, places] = codes_TK
    starts = np.arange(0, k, group_size)
    sums = np.add.reduceat(codes_TK.astype(np.int32), starts, axis=1) if k else np.zeros((tokens, 0), np.int32)
    return codes, scales_TG, (-(8 if bits == 4 else 128) * sums).astype(np.int32)


def qgemm(
    x_TK: F32,
    codes: U8,
    scales: U16 | F32,
    n: int,
    group_size: int,
    activations: str = "int8",
    *,
    bias_N: F32 | None = None,
    norm_K: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
) -> F32:
    """x @ weight.T + bias, group after group: sum += float(integer sum) * (scale of x * scale of the weight)."""
    k = x_TK.shape[1]
    if norm_K is not None:
        x_TK = rms_norm(x_TK, norm_K, eps)
    if activations == "float32":
        product = x_TK @ dequantize_packed(codes, scales, n, k, group_size).T
    else:
        product = _integer_product(x_TK, *unpack_codes(codes, scales, n, k, group_size), group_size)
    if bias_N is not None:
        product = product + bias_N
    if add and out is not None:
        product = out + product
    if out is None:
        return product
    out[...] = product
    return out


def _integer_product(x_TK: F32, codes_NK: I8, scales_NG: U16 | F32, group_size: int) -> F32:
    widened = _widened(scales_NG)
    x_codes_TK, x_scales_TG = round_groups(x_TK, group_size)
    product = np.zeros((len(x_TK), len(codes_NK)), np.float32)
    for g in range(scales_NG.shape[1]):
        columns = slice(g * group_size, (g + 1) * group_size)
        sums_TN = x_codes_TK[:, columns].astype(np.int64) @ codes_NK[:, columns].T.astype(np.int64)
        product += sums_TN.astype(np.float32) * (x_scales_TG[:, g, None] * widened[None, :, g])
    return product


def silu_and_mul(gate: F32, up: F32) -> F32:
    """silu(gate) * up by the polynomial of the kernels: exp on -ln2/2..ln2/2, then a shift of the exponent."""
    f = np.float32
    z = np.clip(-gate, f(-87.0), f(88.0))
    n = np.rint(z * f(1.44269504))
    r = (z - n * f(0.693359375)) - n * f(-2.12194440e-4)
    y = np.full_like(r, f(1.9875691500e-4))
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = y * r + f(c)
    y = y * (r * r) + (r + f(1))
    power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    out: F32 = gate * (f(1) / (f(1) + y * power)) * up
    return out


def moe(
    x_TD: F32,
    text: Pool | None,
    vision: Pool | None,
    shared: Experts | PlainExperts | None,
    *,
    top_k: int,
    norm_min: float = 0.0,
    vision_mask_T: U8 | None = None,
    activations: str = "int8",
    norm_D: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
    routing: tuple[F32, I32] | None = None,
) -> tuple[F32, F32, I32]:
    """One token after the other. A token's experts are summed in the order of their numbers, the shared one last.

    routing: topk_weights and topk_ids to take instead of the routers' choice, whose last bits the native sums decide.
    """
    normed_TD = x_TD if norm_D is None else rms_norm(x_TD, norm_D, eps)
    weights_TK, ids_TK = np.empty((len(x_TD), top_k), np.float32), np.empty((len(x_TD), top_k), np.int32)
    sums_TD = np.zeros_like(x_TD)
    for t in range(len(x_TD)):
        one = normed_TD[t : t + 1]
        pool = vision if vision_mask_T is not None and vision_mask_T[t] else text
        if pool is not None:
            chosen = topk_softmax(one @ pool.weight_ED.T, pool.bias_E, top_k, norm_min)
            weights_TK[t], ids_TK[t] = chosen if routing is None else (routing[0][t], routing[1][t])
            for j in np.argsort(ids_TK[t]):
                sums_TD[t] += weights_TK[t, j] * _expert(one, pool.experts, int(ids_TK[t, j]), activations)[0]
        if shared is not None:
            sums_TD[t] += _expert(one, shared, 0, activations)[0]
    result = out + sums_TD if add and out is not None else sums_TD
    if out is None:
        return result, weights_TK, ids_TK
    out[...] = result
    return out, weights_TK, ids_TK


def _expert(x_TD: F32, experts: Experts | PlainExperts, e: int, activations: str) -> F32:
    if isinstance(experts, PlainExperts):
        gate_up_2FD, down_DF = (_widened(stack[e]) for stack in (experts.gate_up_E2FD, experts.down_EDF))
        return reference.gemm_f32(reference.silu_and_mul(reference.gemm_f32(x_TD, gate_up_2FD)), down_DF)
    padded = -(-experts.inner // BLOCK_ROWS) * BLOCK_ROWS
    both = qgemm(
        x_TD,
        experts.gate_up_codes[e],
        experts.gate_up_scales[e],
        2 * padded,
        experts.gate_up_group,
        activations,
    )
    inner = silu_and_mul(both[:, : experts.inner], both[:, padded : padded + experts.inner])
    return qgemm(inner, experts.down_codes[e], experts.down_scales[e], experts.width, experts.down_group, activations)
