"""Draws the next token of each request from its row of logits. Pure functions: equal arguments, equal tokens.

Order: grammar mask, min_tokens, logit_bias, penalties (vLLM's), then greedy or: temperature, min_p, top_k, top_p.
A draw depends on the row, the request's seed and the index of the output token only: not on who else is in the batch,
nor on preemption or chunking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import EngineError
from tusi.engine.logprobs import SampledLogprobs, gather_logprobs, log_softmax, top_ids
from tusi.engine.penalties import apply_grammar_mask, apply_logit_bias, apply_penalties, ban_tokens
from tusi.engine.sampling_params import SamplingParams

F32 = NDArray[np.float32]

# Below it a softmax is one-hot in float32 for any two logits that differ (vLLM's bound).
_GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRow:
    """What the draw of one token depends on, besides the logits.

    stop_token_ids: ids that may not come before min_tokens, nor at all if bans_stop_tokens. key: from `random_key`.
    allowed_mask: a Grammar's.
    forced_token_id: taken whatever the logits say.
    """

    params: SamplingParams
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    stop_token_ids: Sequence[int]
    key: int
    allowed_mask: bytes | None = None
    forced_token_id: int | None = None
    bans_stop_tokens: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SampledToken:
    """A token, and its log-probabilities if they were asked for."""

    token_id: int
    logprobs: SampledLogprobs | None


def random_key(seed: int) -> int:
    """128-bit key of a request's random stream, from any whole number."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=16).digest(), "little")


def is_greedy(params: SamplingParams) -> bool:
    """True if the likeliest token is taken."""
    return params.temperature < _GREEDY_TEMPERATURE


def adjust_logits(logits_V: F32, row: SamplingRow) -> F32:
    """A copy with everything applied that comes before temperature."""
    params = row.params
    out_V = logits_V.astype(np.float32)
    if row.allowed_mask is not None:
        apply_grammar_mask(out_V, row.allowed_mask)
    if row.bans_stop_tokens or len(row.output_token_ids) < params.min_tokens:
        ban_tokens(out_V, row.stop_token_ids)
    apply_logit_bias(out_V, params.logit_bias)
    apply_penalties(
        out_V,
        row.prompt_token_ids,
        row.output_token_ids,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
    )
    return out_V


def truncate_logits(logits_V: F32, params: SamplingParams) -> F32:
    """Temperature, then min_p, top_k and top_p (vLLM's order); what is cut off becomes -inf. The likeliest stays."""
    out_V = scale_logits(logits_V, params.temperature)
    if params.min_p > 0.0:
        out_V[out_V < np.float32(np.log(params.min_p))] = -np.inf  # the largest is 0
    if 0 < params.top_k < len(out_V):
        out_V = _keep(out_V, top_ids(out_V, params.top_k))
    if params.top_p < 1.0:
        out_V = _keep(out_V, _top_p_ids(out_V, params.top_p))
    return out_V


def scale_logits(logits_V: F32, temperature: float) -> F32:
    """(logits - max) / temperature: shifted first, so that a small temperature cannot overflow to inf - inf."""
    with np.errstate(over="ignore"):
        scaled_V: F32 = (logits_V - logits_V.max()) / np.float32(temperature)
    return scaled_V


def draw(logits_V: F32, key: int, index: int) -> int:
    """Draw number `index` of a stream, by inverting the distribution function over ids in order.

    In order of ids, not of probability: rounding may swap neighbours in rank, and must not change the draw.
    """
    uniform = np.random.Generator(np.random.Philox(key=key, counter=index << 64)).random()
    ids_N = np.flatnonzero(logits_V > -np.inf)
    cumulative_N = np.cumsum(np.exp(logits_V[ids_N] - logits_V.max()), dtype=np.float64)
    at = int(np.searchsorted(cumulative_N, uniform * cumulative_N[-1], side="right"))
    # uniform < 1, but the product may round up to the end; the first id that reaches the end is the last possible one.
    return int(ids_N[min(at, int(np.searchsorted(cumulative_N, cumulative_N[-1], side="left")))])


def sample(logits_V: F32, row: SamplingRow) -> SampledToken:
    """The next token of one request. Raises EngineError if its logits are not finite or its grammar allows nothing."""
    params = row.params
    if _is_plainly_greedy(row):
        token_id = int(logits_V.argmax())  # the lowest id among equals, and of a NaN if there is one
        if not (np.isfinite(logits_V[token_id]) and np.isfinite(logits_V.min())):
            _check_row(logits_V)
        return SampledToken(token_id, None)
    _check_row(logits_V)
    adjusted_V = adjust_logits(logits_V, row)
    if row.forced_token_id is None and np.isneginf(adjusted_V.max()):
        raise EngineError("the grammar allows no token at all; it should have said that it is finished.")
    processed_V = adjusted_V if is_greedy(params) else truncate_logits(adjusted_V, params)
    if row.forced_token_id is not None:
        token_id = row.forced_token_id
    elif is_greedy(params):
        token_id = int(np.argmax(processed_V))  # the lowest id among equals
    else:
        token_id = draw(processed_V, row.key, len(row.output_token_ids))
    if params.logprobs is None:
        return SampledToken(token_id, None)
    logprobs_V = _logprobs(logits_V, processed_V, params)
    return SampledToken(token_id, gather_logprobs(logprobs_V, token_id, params.logprobs))


def _is_plainly_greedy(row: SamplingRow) -> bool:
    """True if the likeliest token is taken as the model gave it: nothing to copy, nothing to adjust."""
    params = row.params
    return (
        is_greedy(params)
        and params.logprobs is None
        and row.forced_token_id is None
        and row.allowed_mask is None
        and not row.bans_stop_tokens
        and len(row.output_token_ids) >= params.min_tokens
        and not params.logit_bias
        and params.repetition_penalty == 1.0
        and params.presence_penalty == 0.0
        and params.frequency_penalty == 0.0
    )


def _logprobs(logits_V: F32, processed_V: F32, params: SamplingParams) -> F32:
    """Of the raw logits; of logits / temperature (greedy: as raw); or of what the token was drawn from."""
    if params.logprobs_mode == "processed_logprobs":
        return log_softmax(processed_V)
    if params.logprobs_mode == "temperature_logprobs" and not is_greedy(params):
        return log_softmax(scale_logits(logits_V, params.temperature))
    return log_softmax(logits_V.astype(np.float32))


def _check_row(logits_V: F32) -> None:
    # A NaN or inf anywhere shows in max and min without another pass over the row.
    if not (np.isfinite(logits_V.max()) and np.isfinite(logits_V.min())):
        raise EngineError(
            f"the model's logits hold NaN or inf (max {logits_V.max()}, min {logits_V.min()}); its weights are damaged "
            f"or a kernel failed. Check the checkpoint; TUSI_ISA=generic tells whether it is the kernels."
        )


def _keep(logits_V: F32, ids: NDArray[np.int64]) -> F32:
    out_V = np.full_like(logits_V, -np.inf)
    out_V[ids] = logits_V[ids]
    return out_V


def _top_p_ids(logits_V: F32, top_p: float) -> NDArray[np.int64]:
    """The fewest likeliest tokens whose probabilities add up to top_p or more, ties by lowest id."""
    weights_V = np.exp(logits_V - logits_V.max())
    total = weights_V.sum(dtype=np.float64)
    # Sorting the vocabulary is what costs. The tokens below this bound have less than 1 - top_p together even if they
    # are all the others, so those above it have more than top_p: only they need to be sorted.
    candidates = np.flatnonzero(weights_V >= (1.0 - top_p) * total / (len(weights_V) + 1))
    ids = candidates[np.argsort(-weights_V[candidates], kind="stable")]
    cumulative = np.cumsum(weights_V[ids], dtype=np.float64)
    return ids[: int(np.searchsorted(cumulative, top_p * total, side="left")) + 1]
