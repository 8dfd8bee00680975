"""Matrix products over weights in float32 and bfloat16, and the conversions of bfloat16. Integer weights: `packed`.

Activations, sums and results are float32. A row's result does not depend on the other rows, nor on the number of
threads; it differs in the last bits from one instruction set to another. Formats: csrc/gemm/gemm.h. Each function
writes into `out` [T, N] (or a new array) and returns it. `isa` (generic, avx2, avx512) forces a set of kernels.
Raises TypeError for a wrong dtype or a gap in memory, ValueError for a wrong shape; nothing is ever copied.
"""

from __future__ import annotations

import numpy as np

from tusi.kernels import _native
from tusi.kernels.reference import F32, U16


def bf16_to_f32(bits: U16, *, out: F32 | None = None) -> F32:
    """Widen bfloat16 bits; exact. Any shape."""
    out = np.empty(bits.shape, np.float32) if out is None else out
    _native.bf16_to_f32(bits, out)
    return out


def f32_to_bf16(values: F32, *, out: U16 | None = None, isa: str | None = None) -> U16:
    """Round to bfloat16 bits, to nearest even; NaN stays NaN. Any shape."""
    out = np.empty(values.shape, np.uint16) if out is None else out
    _native.f32_to_bf16(values, out, isa)
    return out


def gemm_f32(
    x_TK: F32,
    weight_NK: F32,
    *,
    bias_N: F32 | None = None,
    norm_K: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
    isa: str | None = None,
) -> F32:
    """x @ weight.T + bias. norm_K: x is RMS-normalised with it first. add: to what `out` (then needed) holds."""
    out = _result(x_TK, weight_NK, add) if out is None else out
    _native.gemm_f32(x_TK, weight_NK, out, bias_N, norm_K, eps, add, isa)
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
    isa: str | None = None,
) -> F32:
    """The same with bfloat16 weights."""
    out = _result(x_TK, weight_NK, add) if out is None else out
    _native.gemm_bf16(x_TK, weight_NK, out, bias_N, norm_K, eps, add, isa)
    return out


def _result(x_TK: F32, weight_NK: F32 | U16, add: bool) -> F32:
    if add:
        raise ValueError("the product is to be added to `out`, and none was given. Pass the array to add to.")
    # Shapes too wrong to index are the binding's to refuse, with a message that names the argument.
    return np.empty((*x_TK.shape[:1], *weight_NK.shape[:1]), np.float32)
