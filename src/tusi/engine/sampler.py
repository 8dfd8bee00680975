"""Draws the next token of each request from its row of logits. Pure functions: equal arguments, equal tokens.

Order: grammar mask, min_tokens, logit_bias, penalties (vLLM's), then greedy or: temperature, min_p, top_k, top_p.
Rows that need nothing of the first kind, which are most, are drawn all in one native call.
A draw depends on the row, the request's seed and the index of the output token only: not on who else is in the batch,
nor on preemption or chunking.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.errors import EngineError
from tusi.engine.logprobs import SampledLogprobs, gather_logprobs, log_softmax
from tusi.engine.penalties import apply_grammar_mask, apply_logit_bias, apply_penalties, ban_tokens
from tusi.engine.sampling_params import SamplingParams
from tusi.kernels import reference_sampling

F32 = NDArray[np.float32]

# Below it a softmax is one-hot in float32 for any two logits that differ (vLLM's bound).
_GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRow:
    """What the draw of one token depends on, besides the logits.

    stop_token_ids: ids that may not come before min_tokens, nor at all if bans_stop_tokens. key: from `random_key`.
    allowed_mask: a Grammar's.
    forced_token_id: taken whatever the logits say.
    has_plain_params: by its parameters the model's logits are drawn from as they are, and nothing but the id is wanted.
    """

    params: SamplingParams
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    stop_token_ids: Sequence[int]
    key: int
    allowed_mask: bytes | None = None
    forced_token_id: int | None = None
    bans_stop_tokens: bool = False
    has_plain_params: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_plain_params", _has_plain_params(self.params))

    @property
    def is_plain(self) -> bool:
        """True if just now its logits are drawn from as they are."""
        return (
            self.has_plain_params
            and self.forced_token_id is None
            and self.allowed_mask is None
            and not self.bans_stop_tokens
            and len(self.output_token_ids) >= self.params.min_tokens
        )


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
    return reference_sampling.truncate_logits(
        logits_V,
        temperature=params.temperature,
        log_min_p=_log_min_p(params),
        top_k=max(params.top_k, 0),
        top_p=params.top_p,
    )


def sample_batch(logits_RV: F32, rows: Sequence[SamplingRow]) -> list[SampledToken | EngineError]:
    """The next token of each request, or what is wrong with its row."""
    found: list[SampledToken | EngineError | None] = [None] * len(rows)
    plain = [at for at, row in enumerate(rows) if row.is_plain]
    greedy = [at for at in plain if is_greedy(rows[at].params)]
    drawn = [at for at in plain if not is_greedy(rows[at].params)] if len(greedy) < len(plain) else []
    if greedy:
        ids = kernels.argmax_rows(logits_RV).tolist()
        for at in greedy:
            found[at] = _token_or_error(logits_RV[at], ids[at])
    if drawn:
        ids = _draw_rows(logits_RV, drawn, [rows[at] for at in drawn], must_be_finite=True)
        for at, token_id in zip(drawn, ids, strict=True):
            found[at] = _token_or_error(logits_RV[at], token_id)
    return [_sample_or_error(logits_RV[at], rows[at]) if result is None else result for at, result in enumerate(found)]


def sample(logits_V: F32, row: SamplingRow) -> SampledToken:
    """The next token of one request. Raises EngineError if its logits are not finite or its grammar allows nothing."""
    params = row.params
    _check_row(logits_V)
    adjusted_V = adjust_logits(logits_V, row)
    if row.forced_token_id is None and np.isneginf(adjusted_V.max()):
        raise EngineError("the grammar allows no token at all; it should have said that it is finished.")
    # Whoever asks for the distribution that was drawn from gets a token that was drawn from just that one.
    is_processed = params.logprobs is not None and params.logprobs_mode == "processed_logprobs"
    processed_V = truncate_logits(adjusted_V, params) if is_processed and not is_greedy(params) else adjusted_V
    if row.forced_token_id is not None:
        token_id = row.forced_token_id
    elif is_greedy(params):
        token_id = int(np.argmax(adjusted_V))  # the lowest id among equals
    elif is_processed:
        token_id = reference_sampling.draw(processed_V, row.key, len(row.output_token_ids))
    else:
        (token_id,) = _draw_rows(adjusted_V[None], [0], [row], must_be_finite=False)
        if token_id < 0:  # the logits were finite, so it was a logit_bias
            raise _not_finite(adjusted_V)
    if params.logprobs is None:
        return SampledToken(token_id, None)
    logprobs_V = _logprobs(logits_V, processed_V, params)
    return SampledToken(token_id, gather_logprobs(logprobs_V, token_id, params.logprobs))


def _has_plain_params(params: SamplingParams) -> bool:
    return (
        params.logprobs is None
        and not params.logit_bias
        and params.repetition_penalty == 1.0
        and params.presence_penalty == 0.0
        and params.frequency_penalty == 0.0
    )


def _log_min_p(params: SamplingParams) -> float:
    return math.log(params.min_p) if params.min_p > 0.0 else -math.inf


def _draw_rows(
    logits_RV: F32, row_ids: Sequence[int], rows: Sequence[SamplingRow], *, must_be_finite: bool
) -> list[int]:
    """One draw for each of rows, from the row of logits with that id; -1 where nothing can be drawn."""
    params = [row.params for row in rows]
    low = (1 << 64) - 1
    ids: list[int] = kernels.draw_rows(
        logits_RV,
        row_ids_N=np.array(row_ids, np.int64),
        temperature_N=np.array([p.temperature for p in params], np.float32),
        log_min_p_N=np.array([_log_min_p(p) for p in params], np.float32),
        top_k_N=np.array([max(p.top_k, 0) for p in params], np.int64),
        top_p_N=np.array([p.top_p for p in params], np.float64),
        keys_N2=np.array([(row.key & low, row.key >> 64) for row in rows], np.uint64).view(np.int64),
        index_N=np.array([len(row.output_token_ids) for row in rows], np.int64),
        must_be_finite=must_be_finite,
    ).tolist()
    return ids


def _token_or_error(logits_V: F32, token_id: int) -> SampledToken | EngineError:
    return SampledToken(token_id, None) if token_id >= 0 else _not_finite(logits_V)


def _sample_or_error(logits_V: F32, row: SamplingRow) -> SampledToken | EngineError:
    try:
        return sample(logits_V, row)
    except EngineError as error:
        return error


def _logprobs(logits_V: F32, processed_V: F32, params: SamplingParams) -> F32:
    """Of the raw logits; of logits / temperature (greedy: as raw); or of what the token was drawn from."""
    if params.logprobs_mode == "processed_logprobs":
        return log_softmax(processed_V)
    if params.logprobs_mode == "temperature_logprobs" and not is_greedy(params):
        return log_softmax(reference_sampling.scale_logits(logits_V, params.temperature))
    return log_softmax(logits_V.astype(np.float32))


def _check_row(logits_V: F32) -> None:
    # A NaN or inf anywhere shows in max and min without another pass over the row.
    if not (np.isfinite(logits_V.max()) and np.isfinite(logits_V.min())):
        raise _not_finite(logits_V)


def _not_finite(logits_V: F32) -> EngineError:
    return EngineError(
        f"the model's logits hold NaN or inf (max {logits_V.max()}, min {logits_V.min()}); its weights are damaged "
        f"or a kernel failed. Check the checkpoint; TUSI_ISA=generic tells whether it is the kernels."
    )
