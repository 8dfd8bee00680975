"""Choosing tokens from rows of logits. Twins: `reference_sampling`. What the arguments mean: csrc/sampling/sampling.h.

A row's result depends on that row and its own parameters only. Draws of one instruction set may differ from another's
where a random number falls within the last bits of a boundary. `isa` (generic, avx2, avx512) forces a set of kernels.
Raises TypeError for a wrong dtype or a gap in memory, ValueError for a wrong shape or value; nothing is ever copied.
"""

from __future__ import annotations

import numpy as np

from tusi.kernels import _native
from tusi.kernels.reference import F32, I64
from tusi.kernels.reference_sampling import F64


def argmax_rows(logits_RV: F32, *, isa: str | None = None) -> I64:
    """Id of the largest logit of each row, the lowest among equals; -1 where a row holds NaN or inf."""
    ids_R = np.empty(logits_RV.shape[:1], np.int64)
    _native.argmax_rows(logits_RV, ids_R, isa)
    return ids_R


def draw_rows(
    logits_RV: F32,
    *,
    row_ids_N: I64,
    temperature_N: F32,
    log_min_p_N: F32,
    top_k_N: I64,
    top_p_N: F64,
    keys_N2: I64,
    index_N: I64,
    must_be_finite: bool,
    isa: str | None = None,
) -> I64:
    """An id drawn from each of the rows row_ids; -1 where nothing can be drawn.

    keys: 128 bits of each stream, low half first. must_be_finite: -1 also where a logit is -inf.
    """
    ids_N = np.empty(row_ids_N.shape, np.int64)
    _native.draw_rows(
        logits_RV,
        row_ids_N,
        temperature_N,
        log_min_p_N,
        top_k_N,
        top_p_N,
        keys_N2,
        index_N,
        must_be_finite,
        ids_N,
        isa,
    )
    return ids_N
