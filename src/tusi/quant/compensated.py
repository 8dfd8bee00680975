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

_BLOCK_VALUES = 1 << 20
"""Of a block of rows; rows do not know of each other."""
_DAMPING = 0.01
_DAMPING_PER_RANK = 0.1
_ATTEMPTS = 6


class Moments:
    """The sum of x' x over inputs x [T, K], and how many there were."""

    def __init__(self, width: int) -> None:
        self.sum_KK: F32 = np.zeros((width, width), np.float32)
        self.tokens = 0

    def add(self, x_TK: F32) -> None:
        """Count more inputs."""
        self.sum_KK += x_TK.T @ x_TK
        self.tokens += len(x_TK)


@dataclass(frozen=True, slots=True)
class Factor:
    """What rounding needs to know of the inputs.

    upper_KK: the Cholesky factor of the damped moments' inverse; row k says, scaled by its diagonal, how later columns
    answer to an error in column k. importance_K: mean squares of the inputs, damped.
    """

    upper_KK: F32
    importance_K: F32


def make_factor(moments: Moments) -> Factor:
    """Damped by a share of the mean square of all inputs: a hundredth, and more the fewer the inputs are to the width.

    Without it a few inputs would be learnt by heart, and directions that they do not have would be free to err.
    Raises ConfigError where the moments are not finite, or no sum of squares at all.
    """
    width = len(moments.sum_KK)
    mean_KK: F64 = moments.sum_KK.astype(np.float64) / max(1, moments.tokens)
    size = float(np.trace(mean_KK)) / width
    if not (np.isfinite(size) and np.isfinite(mean_KK).all()):
        raise ConfigError("the calibration samples make values that are not finite. Leave out the samples that do.")
    damping = (size or 1.0) * (_DAMPING + _DAMPING_PER_RANK * width / max(1, moments.tokens))
    for _ in range(_ATTEMPTS):
        damped_KK = mean_KK + damping * np.eye(width)
        try:
            upper_KK = np.linalg.cholesky(np.linalg.inv(damped_KK)).T
        except np.linalg.LinAlgError:
            damping *= 10  # rounding has made it indefinite
            continue
        return Factor(np.ascontiguousarray(upper_KK, np.float32), np.diag(damped_KK).astype(np.float32))
    raise ConfigError("the calibration samples' second moments have no inverse. Use more, or other, samples.")


def quantize_compensated(weight_NK: F32 | U16, factor: Factor, bits: Bits, group_size: int) -> tuple[I8, U16]:
    """Codes q_NK and bfloat16 scales_NG (bits), as `quantize_searched` gives them.

    Raises NotFiniteError for NaN or infinite values, ConfigError for a group size below 1 or inputs of another width.
    """
    n, k = weight_NK.shape
    if group_size < 1:
        raise ConfigError(f"group_size is {group_size}; it must be 1 or more. 32 is the usual choice.")
    if len(factor.importance_K) != k:
        raise ConfigError(f"a matrix has {k} columns, and its inputs {len(factor.importance_K)}. Give its own inputs.")
    q_NK, scales_NG = np.empty((n, k), np.int8), np.empty((n, -(-k // group_size)), np.uint16)
    step = max(16, _BLOCK_VALUES // max(1, k))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        free_NK = np.array(widened(weight_NK[rows]), np.float32)  # a copy: it is moved about
        for group in range(scales_NG.shape[1]):
            columns = slice(group * group_size, min(k, (group + 1) * group_size))
            _quantize_group(free_NK, columns, factor, bits, q_NK[rows], scales_NG[rows, group])
    return q_NK, scales_NG


def _quantize_group(free_NK: F32, columns: slice, factor: Factor, bits: Bits, q_NK: I8, scales_N: U16) -> None:
    """Round a group's columns one by one, then move all columns behind it at once."""
    importance_S = factor.importance_K[columns]
    _, scales_N[...] = search_groups(free_NK[:, columns], bits, free_NK.shape, importance_S)
    scale_N = kernels.bf16_to_f32(np.ascontiguousarray(scales_N))
    safe_N = np.where(scale_N > 0, scale_N, np.float32(np.inf))  # a group of zeros stays zeros
    # One row a column, so that what is moved lies together.
    group_SN = np.ascontiguousarray(free_NK[:, columns].T)
    errors_SN = np.empty_like(group_SN)
    upper_SS = factor.upper_KK[columns, columns]
    for s, column_N in enumerate(group_SN):
        codes_N = np.clip(np.rint(column_N / safe_N), *CODE_RANGES[bits])
        q_NK[:, columns.start + s] = codes_N
        errors_SN[s] = (column_N - codes_N * scale_N) / upper_SS[s, s]
        group_SN[s + 1 :] -= upper_SS[s, s + 1 :, None] * errors_SN[s]
    free_NK[:, columns.stop :] -= errors_SN.T @ factor.upper_KK[columns, columns.stop :]
