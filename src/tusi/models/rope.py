"""Rotary angles: three position axes for the decoder, two for the vision tower.

In: integer positions; out: cosines and sines per token and rotary pair, float32. Frequencies are rounded to float32 and
angles multiplied in float32, as in the reference: at position 100,000 one unit in the last place of a frequency is an
angle of 0.006. Knows nothing of weights.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tusi.models.config import Ernie4_5_VLMoeTextConfig

F32 = NDArray[np.float32]
Positions = NDArray[np.integer]


def rope_frequencies(dim: int, theta: float) -> F32:
    """theta^(-2j/dim) for each of the dim/2 rotary pairs, rounded to float32 where the reference rounds."""
    exponents_P = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return np.float32(1.0) / np.power(np.float64(theta), exponents_P.astype(np.float64)).astype(np.float32)


def mrope_axes(mrope_section: tuple[int, int, int]) -> NDArray[np.intp]:
    """Which row of the positions (0 t, 1 h, 2 w) turns each rotary pair: h and w by turns, then t for the slowest."""
    h, w, t = mrope_section
    return np.array([1, 2] * ((h + w) // 2) + [0] * t, np.intp)


@cache
def _text_tables(mrope_section: tuple[int, int, int], head_dim: int, rope_theta: float) -> tuple[NDArray[np.intp], F32]:
    """What does not change from step to step."""
    return mrope_axes(mrope_section), rope_frequencies(head_dim, rope_theta)


def text_rope(position_ids_3T: Positions, config: Ernie4_5_VLMoeTextConfig) -> tuple[F32, F32]:
    """cos_TP and sin_TP for `rotary_interleaved`; position rows are t, h, w."""
    axes_P, inv_freq_P = _text_tables(config.mrope_section, config.head_dim, config.rope_theta)
    return _cos_sin(position_ids_3T[axes_P].T, inv_freq_P)


def vision_rope(grid_thw: tuple[int, int, int], merge_size: int, head_dim: int, theta: float) -> tuple[F32, F32]:
    """cos_TP and sin_TP for `rotary_half`: first half of the pairs by patch row, second half by patch column.

    Tokens run frame by frame, and in a frame cell by cell of merge_size x merge_size patches, as the pixels do.
    """
    t, h, w = grid_thw
    rows_HW, cols_HW = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    cells = (h // merge_size, merge_size, w // merge_size, merge_size)
    rows_T = np.tile(rows_HW.reshape(cells).transpose(0, 2, 1, 3).reshape(-1), t)
    cols_T = np.tile(cols_HW.reshape(cells).transpose(0, 2, 1, 3).reshape(-1), t)
    inv_freq = rope_frequencies(head_dim // 2, theta)
    pairs = len(inv_freq)
    positions_TP = np.concatenate([np.tile(rows_T[:, None], pairs), np.tile(cols_T[:, None], pairs)], axis=1)
    return _cos_sin(positions_TP, np.tile(inv_freq, 2))


def _cos_sin(positions_TP: Positions, inv_freq_P: F32) -> tuple[F32, F32]:
    # order="C": the axes' rows come transposed, and the kernels refuse what is not contiguous.
    angles_TP = (positions_TP.astype(np.float32, order="C") * inv_freq_P).astype(np.float64)
    return np.cos(angles_TP).astype(np.float32), np.sin(angles_TP).astype(np.float32)
