"""The slow twins of `sampling`: which tokens are kept, and which of them is drawn. One row of logits [V] at a time.

`truncate_logits` is also what the engine computes where somebody wants to see the distribution that was drawn from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tusi.kernels.reference import F32, I64

F64 = NDArray[np.float64]


def argmax_rows(logits_RV: F32) -> I64:
    """Id of the largest logit of each row, the lowest among equals; -1 where a row holds NaN or inf."""
    return np.where(np.isfinite(logits_RV).all(axis=1), logits_RV.argmax(axis=1), -1)


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
) -> I64:
    """An id drawn from each of the rows row_ids; see `truncate_logits` and `draw`."""
    ids = []
    for n, row in enumerate(row_ids_N):
        logits_V = logits_RV[row]
        if not np.isfinite(logits_V.max()) or (must_be_finite and not np.isfinite(logits_V).all()):
            ids.append(-1)
            continue
        kept_V = truncate_logits(
            logits_V,
            temperature=float(temperature_N[n]),
            log_min_p=float(log_min_p_N[n]),
            top_k=int(top_k_N[n]),
            top_p=float(top_p_N[n]),
        )
        low, high = keys_N2[n].view(np.uint64)
        ids.append(draw(kept_V, int(low) | int(high) << 64, int(index_N[n])))
    return np.array(ids, np.int64)


def truncate_logits(logits_V: F32, *, temperature: float, log_min_p: float, top_k: int, top_p: float) -> F32:
    """Temperature, then min_p, top_k (0: all) and top_p (vLLM's order); what is cut off becomes -inf.

    The largest is 0 afterwards, and stays.
    """
    out_V = scale_logits(logits_V, temperature)
    out_V[out_V < np.float32(log_min_p)] = -np.inf
    if 0 < top_k < len(out_V):
        out_V = _keep(out_V, top_ids(out_V, top_k))
    if top_p < 1.0:
        out_V = _keep(out_V, _top_p_ids(out_V, top_p))
    return out_V


def scale_logits(logits_V: F32, temperature: float) -> F32:
    """(logits - max) / temperature: shifted first, so that a small temperature cannot overflow to inf - inf."""
    with np.errstate(over="ignore"):
        scaled_V: F32 = (logits_V - logits_V.max()) / np.float32(temperature)
    return scaled_V


def top_ids(values_V: F32, count: int) -> I64:
    """Ids of the `count` largest finite values, largest first, ties by lowest id."""
    count = min(count, len(values_V))
    if count == 0:
        return np.empty(0, np.int64)
    # The count-th largest value bounds the candidates, so that only a few of the vocabulary are sorted.
    bound = np.partition(values_V, len(values_V) - count)[len(values_V) - count]
    candidates = np.flatnonzero((values_V >= bound) & (values_V > -np.inf))
    order = np.argsort(-values_V[candidates], kind="stable")
    return candidates[order[:count]]


def draw(logits_V: F32, key: int, index: int) -> int:
    """Draw number `index` of the stream of a 128-bit key, by inverting the distribution function over ids in order.

    In order of ids, not of probability: rounding may swap neighbours in rank, and must not change the draw.
    """
    ids_N = np.flatnonzero(logits_V > -np.inf)
    cumulative_N = np.cumsum(np.exp(logits_V[ids_N] - logits_V.max()), dtype=np.float64)
    at = int(np.searchsorted(cumulative_N, uniform(key, index) * cumulative_N[-1], side="right"))
    # uniform < 1, but the product may round up to the end; the first id that reaches the end is the last possible one.
    return int(ids_N[min(at, int(np.searchsorted(cumulative_N, cumulative_N[-1], side="left")))])


def uniform(key: int, index: int) -> float:
    """Number `index` of a stream, in [0, 1)."""
    return float(np.random.Generator(np.random.Philox(key=key, counter=index << 64)).random())


def _keep(logits_V: F32, ids: I64) -> F32:
    out_V = np.full_like(logits_V, -np.inf)
    out_V[ids] = logits_V[ids]
    return out_V


def _top_p_ids(logits_V: F32, top_p: float) -> I64:
    """The fewest likeliest tokens whose probabilities add up to top_p or more, ties by lowest id."""
    weights_V = np.exp(logits_V - logits_V.max())
    total = weights_V.sum(dtype=np.float64)
    # Sorting the vocabulary is what costs. The tokens below this bound have less than 1 - top_p together even if they
    # are all the others, so those above it have more than top_p: only they need to be sorted.
    candidates = np.flatnonzero(weights_V >= (1.0 - top_p) * total / (len(weights_V) + 1))
    ids = candidates[np.argsort(-weights_V[candidates], kind="stable")]
    cumulative = np.cumsum(weights_V[ids], dtype=np.float64)
    return ids[: int(np.searchsorted(cumulative, top_p * total, side="left")) + 1]
