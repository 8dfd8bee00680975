"""Quantisation with a searched scale: for each group the one of several scales whose rounding errs least.

In: a float32 or bfloat16 (uint16 bits) matrix, the width of the codes, the group size. Out: codes and scales; the
scales are bfloat16, because that is how they are stored, and the codes are chosen for the stored scale and not for the
one before rounding. Knows nothing of how codes are packed, nor of models.

Rounding to nearest spends its range on the largest value of a group. A somewhat smaller scale clips that one value and
serves all others better. For fixed codes q the best scale is w.q / q.q and the squared error that it leaves is
w.w - (w.q)^2 / q.q, so each candidate costs one rounding and two sums.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tusi import kernels
from tusi.core.errors import ConfigError
from tusi.quant.weights import F32, I8, U16, NotFiniteError

Bits = Literal[4, 8]

# Small enough to stay in the second-level cache over the passes of all candidates.
_BLOCK_VALUES = 1 << 15
# Candidate scales are max |w| / step. int4 may use the code -8, which symmetric rounding to nearest leaves unused. At 8
# bits clipping never pays for more than a trifle, and the gain is in where the largest value falls between codes.
_STEPS: dict[Bits, tuple[float, ...]] = {
    4: (6.5, 7.0, 7.3, 7.6, 7.9, 8.3, 8.8, 9.5, 10.5),
    8: (126.5, 127.0, 127.4, 128.0, 129.0, 130.5),
}
CODE_RANGES: dict[Bits, tuple[int, int]] = {4: (-8, 7), 8: (-127, 127)}


def quantize_searched(weight_NK: F32 | U16, bits: Bits, group_size: int) -> tuple[I8, U16]:
    """Codes q_NK and bfloat16 scales_NG (bits) of a matrix; the value is q * scale. The last group may be short.

    Codes lie in -8..7 or -127..127. Never worse in squared error, group by group, than rounding to nearest with
    scales of bfloat16. Raises NotFiniteError for NaN or infinite values, ConfigError for a group size below 1.
    """
    if group_size < 1:
        raise ConfigError(f"group_size is {group_size}; it must be 1 or more. 32 is the usual choice.")
    n, k = weight_NK.shape
    groups = -(-k // group_size)
    q_NK, scales_NG = np.empty((n, k), np.int8), np.empty((n, groups), np.uint16)
    step = max(1, _BLOCK_VALUES // max(1, k))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        block = widened(weight_NK[rows])
        padded_NK = np.zeros((len(block), groups * group_size), np.float32)
        padded_NK[:, :k] = block
        q_MS, scales_M = search_groups(padded_NK.reshape(-1, group_size), bits, weight_NK.shape)
        q_NK[rows] = q_MS.reshape(len(block), -1)[:, :k]
        scales_NG[rows] = scales_M.reshape(len(block), groups)
    return q_NK, scales_NG


def widened(block_NK: F32 | U16) -> F32:
    """A matrix, or bfloat16 bits of one, as float32."""
    if block_NK.dtype == np.uint16:
        return kernels.bf16_to_f32(np.ascontiguousarray(block_NK))
    return block_NK.astype(np.float32, copy=False)


def search_groups(
    weight_MS: F32, bits: Bits, shape: tuple[int, ...], importance_S: F32 | None = None
) -> tuple[I8, U16]:
    """M groups of S values -> codes [M, S] and scales [M].

    importance_S: what a squared error in each place counts; None: all the same. shape: of the matrix, for messages.
    """
    largest_M = np.abs(weight_MS).max(axis=1)
    if not np.isfinite(largest_M).all():
        raise NotFiniteError(
            f"a matrix {list(shape)} to quantise holds NaN or infinite values; all must be finite. "
            "Look for damage in the checkpoint it came from."
        )
    # Within -1..1, so that no sum of squares overflows. A group of zeros stays zeros.
    divisor_M = np.where(largest_M > 0, largest_M, np.float32(1.0))
    unit_MS = weight_MS / divisor_M[:, None]
    q_low, q_high = CODE_RANGES[bits]
    best_scale_M = np.full(len(unit_MS), 1.0 / _STEPS[bits][0], np.float32)
    best_gain_M = np.full(len(unit_MS), -1.0, np.float32)
    codes_MS = np.empty_like(unit_MS)
    for step in _STEPS[bits]:
        np.multiply(unit_MS, np.float32(step), out=codes_MS)
        np.rint(codes_MS, out=codes_MS)
        np.clip(codes_MS, q_low, q_high, out=codes_MS)
        dot_M, square_M = _products(unit_MS, codes_MS, importance_S)
        gain_M = dot_M * dot_M / square_M
        better_M = gain_M > best_gain_M
        best_gain_M[better_M] = gain_M[better_M]
        best_scale_M[better_M] = (dot_M / square_M)[better_M]
    searched = _round(weight_MS, best_scale_M * divisor_M, bits, divisor_M, importance_S)
    q_max = np.float32(127 if bits == 8 else 7)
    plain = _round(weight_MS, largest_M / q_max, bits, divisor_M, importance_S)
    keeps_plain_M = plain[2] < searched[2]
    q_MS = np.where(keeps_plain_M[:, None], plain[0], searched[0])
    scales_M = np.where(keeps_plain_M, plain[1], searched[1])
    return q_MS, np.where(largest_M > 0, scales_M, np.uint16(0))


def _products(unit_MS: Any, codes_MS: Any, importance_S: F32 | None) -> tuple[Any, Any]:
    """Of values and codes, and of codes with themselves (which is never 0, because a quotient has it below)."""
    if importance_S is None:
        dot_M, square_M = np.einsum("ms,ms->m", unit_MS, codes_MS), np.einsum("ms,ms->m", codes_MS, codes_MS)
        return dot_M, np.maximum(square_M, np.float32(1.0))
    dot_M, square_M = (unit_MS * codes_MS) @ importance_S, (codes_MS * codes_MS) @ importance_S
    return dot_M, np.where(square_M > 0, square_M, np.float32(1.0))


def _round(weight_MS: F32, scale_M: F32, bits: Bits, unit_M: F32, importance_S: F32 | None) -> tuple[I8, U16, F32]:
    """Codes, the stored scale, and the squared error in units of each group's largest value."""
    scales_M = kernels.f32_to_bf16(np.ascontiguousarray(scale_M))
    stored_M = kernels.bf16_to_f32(scales_M)
    # A scale may be so small that bfloat16 has only zero for it; such a group becomes zeros.
    safe_M = np.where(stored_M > 0, stored_M, np.float32(np.inf))
    codes_MS = np.clip(np.rint(weight_MS / safe_M[:, None]), *CODE_RANGES[bits])
    error_MS = (codes_MS * stored_M[:, None] - weight_MS) / unit_M[:, None]
    if importance_S is not None:
        return codes_MS.astype(np.int8), scales_M, (error_MS * error_MS) @ importance_S
    return codes_MS.astype(np.int8), scales_M, np.einsum("ms,ms->m", error_MS, error_MS)
