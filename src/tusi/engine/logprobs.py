"""Log-probabilities of what was drawn and of its alternatives. Pure functions over one row [V]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tusi.kernels.reference_sampling import top_ids

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SampledLogprobs:
    """Log-probability of a token, and of the alternatives asked for.

    top_token_ids_N, top_logprobs_N: the N likeliest, best first, ties by lowest id; those that can not be drawn
    (-inf) are left out. For logprobs=-1 the whole vocabulary, in the order of ids, -inf included.
    """

    token_id: int
    logprob: float
    top_token_ids_N: NDArray[np.int64]
    top_logprobs_N: F32


def log_softmax(logits_V: F32) -> F32:
    """logits - log(sum(exp(logits))), summed in float64: a vocabulary is long."""
    shifted: F32 = logits_V - logits_V.max()
    return shifted - np.float32(np.log(np.exp(shifted).sum(dtype=np.float64)))


def gather_logprobs(logprobs_V: F32, token_id: int, count: int) -> SampledLogprobs:
    """Pick out a token's log-probability and those of the `count` likeliest (-1: of all)."""
    if count == -1:
        ids = np.arange(len(logprobs_V))
        return SampledLogprobs(token_id, float(logprobs_V[token_id]), ids, logprobs_V)
    ids = top_ids(logprobs_V, count)
    return SampledLogprobs(token_id, float(logprobs_V[token_id]), ids, logprobs_V[ids])
