"""Quantising a matrix so that its product with known inputs errs least: later columns make up for what one errs.

The squared error of a product, summed over inputs x, is e H e' for a row's errors e and H, the sum of x' x. Columns are
rounded one after the other; each time, the columns that are still free are moved to where they lower that error most
(Frantar et al., "GPTQ", 2022, after the optimal brain surgeon). Scales are searched, group by group, by the squared
error weighted with the diagonal of H.

In: a matrix, the second moments of its inputs. Out: codes and scales as `search` makes them. Knows nothing of layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.errors import ConfigError
from tusi.quant.search import CODE_RANGES, Bits, search_groups, widened
from tusi.quant.weights import F32, I8, U16

F64 = NDArray[np.float64]

WIDEST = 4096
"""Columns that answer to each other's errors. What a wider matrix loses is little, and the work grows with the cube."""
_BLOCK_VALUES = 1 << 20
"""Of a block of rows; rows do not know of each other."""
_DAMPING = 0.01
_DAMPING_PER_RANK = 0.1
_ATTEMPTS = 6


class Moments:
    """The sums of x' x over inputs x [T, K], and how many there were. Wide inputs are cut into blocks of columns."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self.sums: list[F32] = [
            np.zeros((size, size), np.float32)
            for size in (min(WIDEST, width - begin) for begin in range(0, width, WIDEST))
        ]

    def add(self, x_TK: F32) -> None:
        """Count more inputs."""
        for number, sum_CC in enumerate(self.sums):
            x_TC = x_TK[:, number * WIDEST : number * WIDEST + len(sum_CC)]
            sum_CC += x_TC.T @ x_TC
        self.tokens += len(x_TK)


@dataclass(frozen=True, slots=True)
class Factor:
    """What rounding needs to know of the inputs, for each block of C columns.

    uppers: the Cholesky factor of the damped moments' inverse; row c says, scaled by its diagonal, how later columns
    answer to an error in column c. importances: mean squares of the inputs, damped.
    """

    uppers: tuple[F32, ...]
    importances: tuple[F32, ...]

    @property
    def width(self) -> int:
        return sum(map(len, self.importances))


def make_factor(moments: Moments) -> Factor:
    """Damped by a share of the mean square of all inputs: a hundredth, and more the fewer the inputs are to the width.

    Without it a few inputs would be learnt by heart, and directions that they do not have would be free to err.
    Raises ConfigError where the moments are not finite, or have no inverse.
    """
    tokens = max(1, moments.tokens)
    blocks = [_factor_of(sum_CC, tokens) for sum_CC in moments.sums]
    return Factor(tuple(upper for upper, _ in blocks), tuple(importance for _, importance in blocks))


def _factor_of(sum_CC: F32, tokens: int) -> tuple[F32, F32]:
    width = len(sum_CC)
    damped_CC: F64 = sum_CC.astype(np.float64) / tokens
    mean_C = damped_CC.diagonal().copy()
    size = float(mean_C.mean())
    if not (np.isfinite(size) and np.isfinite(damped_CC).all()):
        raise ConfigError("the calibration samples make values that are not finite. Leave out the samples that do.")
    damping = (size or 1.0) * (_DAMPING + _DAMPING_PER_RANK * width / tokens)
    for _ in range(_ATTEMPTS):
        np.fill_diagonal(damped_CC, mean_C + damping)
        try:
            upper_CC = np.linalg.cholesky(np.linalg.inv(damped_CC)).T
        except np.linalg.LinAlgError:
            damping *= 10  # rounding has made it indefinite
            continue
        return np.ascontiguousarray(upper_CC, np.float32), (mean_C + damping).astype(np.float32)
    raise ConfigError("the calibration samples' second moments have no inverse. Use more, or other, samples.")


def quantize_compensated(weight_NK: F32 | U16, factor: Factor, bits: Bits, group_size: int) -> tuple[I8, U16]:
    """Codes q_NK and bfloat16 scales_NG (bits), as `quantize_searched` gives them.

    Raises NotFiniteError for NaN or infinite values, ConfigError for a group size that cuts WIDEST unevenly (below 1,
    for one) or inputs of another width.
    """
    n, k = weight_NK.shape
    if group_size < 1 or WIDEST % group_size:
        raise ConfigError(f"group_size is {group_size}; it must divide {WIDEST}. 32 is the usual choice.")
    if factor.width != k:
        raise ConfigError(f"a matrix has {k} columns, and its inputs {factor.width}. Give its own inputs.")
    q_NK, scales_NG = np.empty((n, k), np.int8), np.empty((n, -(-k // group_size)), np.uint16)
    step = max(16, _BLOCK_VALUES // max(1, min(k, WIDEST)))
    for number, (upper_CC, importance_C) in enumerate(zip(factor.uppers, factor.importances, strict=True)):
        first, width = number * WIDEST, len(importance_C)
        for begin in range(0, n, step):
            rows = slice(begin, begin + step)
            free_NC = np.array(widened(weight_NK[rows, first : first + width]), np.float32)  # a copy: it is moved about
            for at in range(0, width, group_size):
                columns = slice(at, min(width, at + group_size))
                scales_N = scales_NG[rows, (first + at) // group_size]
                codes_NS = q_NK[rows, first + columns.start : first + columns.stop]
                _quantize_group(free_NC, columns, upper_CC, importance_C[columns], bits, codes_NS, scales_N)
    return q_NK, scales_NG


def _quantize_group(
    free_NC: F32, columns: slice, upper_CC: F32, importance_S: F32, bits: Bits, codes_NS: I8, scales_N: U16
) -> None:
    """Round a group's columns one by one, then move all columns behind it at once."""
    _, scales_N[...] = search_groups(free_NC[:, columns], bits, free_NC.shape, importance_S)
    scale_N = kernels.bf16_to_f32(np.ascontiguousarray(scales_N))
    safe_N = np.where(scale_N > 0, scale_N, np.float32(np.inf))  # a group of zeros stays zeros
    # One row a column, so that what is moved lies together.
    group_SN = np.ascontiguousarray(free_NC[:, columns].T)
    errors_SN = np.empty_like(group_SN)
    upper_SS = upper_CC[columns, columns]
    for s, column_N in enumerate(group_SN):
        codes_N = np.clip(np.rint(column_N / safe_N), *CODE_RANGES[bits])
        codes_NS[:, s] = codes_N
        errors_SN[s] = (column_N - codes_N * scale_N) / upper_SS[s, s]
        group_SN[s + 1 :] -= upper_SS[s, s + 1 :, None] * errors_SN[s]
    free_NC[:, columns.stop :] -= errors_SN.T @ upper_CC[columns, columns.stop :]
