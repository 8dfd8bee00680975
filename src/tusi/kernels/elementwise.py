"""Norms, activations, rotary embedding and the router's choice: float32 ops that treat each row by itself.

Each function writes into `out` (or a new array) and returns it; where it says so, `out` may be the input itself.
Raises TypeError for a wrong dtype or a gap in memory, ValueError for a wrong shape; nothing is ever copied. Those
that a portable loop is fast enough for take no `isa`.
"""

from __future__ import annotations

import numpy as np

from tusi.kernels import _native
from tusi.kernels.reference import F32, I32


def rms_norm(x_TD: F32, weight_D: F32, eps: float, *, out: F32 | None = None, isa: str | None = None) -> F32:
    """weight * x / sqrt(mean(x^2) + eps) over the last axis. In place if out is x."""
    out = np.empty(x_TD.shape, np.float32) if out is None else out
    _native.rms_norm(x_TD, weight_D, eps, out, isa)
    return out


def layer_norm(
    x_TD: F32, weight_D: F32, bias_D: F32, eps: float, *, out: F32 | None = None, isa: str | None = None
) -> F32:
    """weight * (x - mean) / sqrt(var + eps) + bias over the last axis. In place if out is x."""
    out = np.empty(x_TD.shape, np.float32) if out is None else out
    _native.layer_norm(x_TD, weight_D, bias_D, eps, out, isa)
    return out


def silu_and_mul(gate_up_T2F: F32, *, out: F32 | None = None, isa: str | None = None) -> F32:
    """silu(first half of the last axis) * second half; differs in the last bits from one instruction set to another."""
    if out is None:
        out = np.empty((*gate_up_T2F.shape[:-1], *(n // 2 for n in gate_up_T2F.shape[-1:])), np.float32)
    _native.silu_and_mul(gate_up_T2F, out, isa)
    return out


def gelu(x: F32, *, out: F32 | None = None) -> F32:
    """The exact GELU: x/2 * (1 + erf(x / sqrt 2)). Any shape. In place if out is x."""
    out = np.empty(x.shape, np.float32) if out is None else out
    _native.gelu(x, out)
    return out


def quick_gelu(x: F32, *, out: F32 | None = None, isa: str | None = None) -> F32:
    """x * sigmoid(1.702 x). Any shape. In place if out is x. Differs in the last bits between instruction sets."""
    out = np.empty(x.shape, np.float32) if out is None else out
    _native.quick_gelu(x, out, isa)
    return out


def rotary_interleaved(x_TNH: F32, cos_TP: F32, sin_TP: F32, *, out: F32 | None = None, isa: str | None = None) -> F32:
    """Rotate pairs (2j, 2j+1) of each head by angle j (GPT-J order). In place if out is x."""
    out = np.empty(x_TNH.shape, np.float32) if out is None else out
    _native.rotary_interleaved(x_TNH, cos_TP, sin_TP, out, isa)
    return out


def rotary_half(x_TNH: F32, cos_TP: F32, sin_TP: F32, *, out: F32 | None = None, isa: str | None = None) -> F32:
    """Rotate pairs (j, j + H/2) of each head by angle j (NeoX order). In place if out is x."""
    out = np.empty(x_TNH.shape, np.float32) if out is None else out
    _native.rotary_half(x_TNH, cos_TP, sin_TP, out, isa)
    return out


def topk_softmax(logits_TE: F32, bias_E: F32, k: int, norm_min: float, *, isa: str | None = None) -> tuple[F32, I32]:
    """The router: choose k experts by softmax probability + bias, weigh by probability renormalised over the chosen.

    Returns weights [T, K] and expert ids [T, K], best first; of equal scores the lowest id. The sum that divides is
    at least norm_min.
    """
    shape = (*logits_TE.shape[:1], max(k, 0))
    weights_TK, ids_TK = np.empty(shape, np.float32), np.empty(shape, np.int32)
    _native.topk_softmax(logits_TE, bias_E, k, norm_min, weights_TK, ids_TK, isa)
    return weights_TK, ids_TK
