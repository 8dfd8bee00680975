"""The engine: requests in, tokens out, one step at a time.

Ties scheduler, runner and sampler together; owns the life of each request from add to finish. Sees token ids and
tensors, never text. One thread owns it; it has no locks.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tusi.core.errors import CapacityError, EngineError, RequestError
from tusi.engine.admission import check_request, token_flags
from tusi.engine.config import EngineConfig
from tusi.engine.outputs import EngineFinishReason, EngineOutput, EngineStats
from tusi.engine.request import Request
from tusi.engine.runner import F32, MediaData, ModelRunner, RunnableModel
from tusi.engine.sampler import SampledToken, SamplingRow, random_key, sample_batch
from tusi.engine.scheduler import Scheduler

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Generation:
    """A request and what drawing its tokens needs.

    row: what a draw depends on where no grammar rules, no token is forced and the end is not held (it sees the output
    grow). has_reasoned: a token that ends the reasoning has come, or none was expected. holds_end: no token that stops
    it may be drawn just now.
    """

    request: Request
    row: SamplingRow
    has_reasoned: bool
    holds_end: bool = False

    @property
    def is_structured(self) -> bool:
        """True while a grammar rules the next token; forced tokens left over from the reasoning pass it by."""
        return self.request.grammar is not None and self.has_reasoned and not self.request.forced_token_ids


class EngineCore:
    """Continuous batching over one model.

    Of SamplingParams it honours what concerns tokens. What concerns text or several completions (stop, n,
    structured_outputs, thinking_budget, repetition_break, the detokenizer's switches) is done above it: a completion
    is a request of its own, and those of one prompt share its blocks through the prefix cache.
    """

    def __init__(self, model: RunnableModel, config: EngineConfig) -> None:
        self.config = config
        self._model_config = model.config
        self._runner = ModelRunner(model, config)
        self._scheduler = Scheduler(config, self._runner.num_blocks)
        self._max_model_len = min(config.max_model_len, self._num_kv_slots)
        self._generations: dict[str, _Generation] = {}
        self._num_steps = 0
        self._death: EngineError | None = None
        logger.info(
            "engine: %d KV blocks of %d tokens (%s), %d sequences, %d tokens a step",
            self._runner.num_blocks,
            config.block_size,
            config.kv_cache_format,
            config.max_num_seqs,
            config.max_num_batched_tokens,
        )

    @property
    def max_model_len(self) -> int:
        """Tokens that a prompt and its output may have together: the configured limit, or the KV cache if smaller."""
        return self._max_model_len

    @property
    def is_dead(self) -> bool:
        """True once a step failed; nothing can be added or stepped any more."""
        return self._death is not None

    def add_request(self, request: Request) -> None:
        """Queue a request. Raises RequestError, ContextLengthExceeded, CapacityError, or EngineError if dead."""
        self._check_alive()
        if request.request_id in self._generations:
            raise RequestError(
                f"request_id {request.request_id!r} is in use; give each request its own.", param="request_id"
            )
        check_request(
            request,
            model_config=self._model_config,
            max_model_len=self.config.max_model_len,
            num_kv_slots=self._num_kv_slots,
        )
        if len(self._scheduler.waiting) >= self.config.max_waiting:
            raise CapacityError(
                f"{len(self._scheduler.waiting)} requests are waiting, as many as max_waiting allows; try again later."
            )
        params = request.sampling_params
        eos = () if params.ignore_eos else request.eos_token_ids
        request.token_flags = token_flags(request)
        row = SamplingRow(
            params=params,
            prompt_token_ids=request.prompt_token_ids,
            output_token_ids=request.output_token_ids,
            stop_token_ids=(*eos, *params.stop_token_ids),
            key=secrets.randbits(128) if params.seed is None else random_key(params.seed),
        )
        self._generations[request.request_id] = _Generation(
            request, row, has_reasoned=not request.reasoning_end_token_ids
        )
        self._scheduler.add(request)

    def encode_media(self, data: MediaData) -> F32:
        """The vision tower's merged features [rows, D] of a medium. Between two steps; all requests wait for it."""
        self._check_alive()
        return self._runner.encode_media(data)

    def has_unfinished(self) -> bool:
        """True while a step has something to do."""
        return bool(self._generations)

    def step(self) -> list[EngineOutput]:
        """Compute one batch and draw its tokens.

        If that fails, the engine is dead: every request in it is returned with the error, and its memory is freed.
        """
        self._check_alive()
        if not self._generations:
            return []
        try:
            return self._step()
        except Exception as error:
            # The engine's loop, where whatever the model raises must reach every caller.
            logger.exception("the engine failed in step %d", self._num_steps)
            return self._die(error)
        except BaseException as error:
            # Interrupted half-way: blocks are claimed that were never computed.
            self._die(error)
            raise

    def abort(self, request_id: str) -> bool:
        """Drop a request in any state and free what it holds. False: there is none of that name (any more)."""
        generation = self._generations.pop(request_id, None)
        if generation is None:
            return False
        self._scheduler.finish(generation.request)
        return True

    def force_tokens(self, request_id: str, token_ids: Sequence[int]) -> None:
        """Make these the next tokens of a request, after any that were forced before; one a step.

        They count and stop as drawn ones do. A sleeping grammar does not see them, even if one of them ends the
        reasoning: it wakes after the last of them. Raises RequestError for an unknown request or id, or if the
        grammar is awake, for then they could break the promised form.
        """
        generation = self._generations.get(request_id)
        if generation is None:
            raise RequestError(f"there is no request {request_id!r} to force tokens on; it may have finished.")
        wrong = [i for i in token_ids if not 0 <= i < self._runner.vocab_size]
        if wrong:
            raise RequestError(f"{wrong[0]} is no token id; ids run from 0 to {self._runner.vocab_size - 1}.")
        if generation.is_structured:
            raise RequestError(
                f"request {request_id!r} is writing a structured answer; tokens can be forced before it begins only."
            )
        generation.request.forced_token_ids.extend(token_ids)

    def hold_end(self, request_id: str, *, hold: bool) -> None:
        """While held, a request draws no end or stop token: an answer is owed (after a reasoning that was cut off).

        Forced tokens, max_tokens and a grammar at work, which has its own mind about the end, are not affected.
        Raises RequestError for an unknown request.
        """
        generation = self._generations.get(request_id)
        if generation is None:
            raise RequestError(f"there is no request {request_id!r} to hold; it may have finished.")
        generation.holds_end = hold

    def stats(self) -> EngineStats:
        """Counters, for logs, metrics and tests."""
        scheduler = self._scheduler
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            num_blocks=scheduler.block_pool.num_blocks,
            num_free_blocks=scheduler.block_pool.num_free_blocks,
            num_cached_blocks=scheduler.block_pool.num_cached_blocks,
            num_encoder_cache_tokens=scheduler.encoder_cache.num_tokens,
            num_steps=self._num_steps,
            num_cache_hit_tokens=scheduler.num_cache_hit_tokens,
            num_preemptions=scheduler.num_preemptions,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError unless all books balance; for tests, after any call."""
        self._scheduler.check_integrity()
        assert self._scheduler.encoder_cache.num_tokens == self._runner.num_encoder_cache_rows
        scheduled = {r.request_id for r in (*self._scheduler.running, *self._scheduler.waiting)}
        assert scheduled == self._generations.keys()

    @property
    def _num_kv_slots(self) -> int:
        return self._runner.num_blocks * self.config.block_size

    def _step(self) -> list[EngineOutput]:
        output = self._scheduler.schedule()
        self._num_steps += 1
        # A step may serve only to put a request back, whose place others take in the next one.
        if not output.scheduled and not output.preempted_request_ids:
            raise EngineError("the scheduler found nothing to run though requests are unfinished.")
        logits_RV = self._runner.execute(output)
        self._scheduler.update(output)
        generations = [self._generations[s.request.request_id] for s in output.scheduled if s.needs_logits]
        drawn = sample_batch(logits_RV, [_sampling_row(generation) for generation in generations])
        return [self._take(generation, token) for generation, token in zip(generations, drawn, strict=True)]

    def _take(self, generation: _Generation, token: SampledToken | EngineError) -> EngineOutput:
        """A request's next token. What went wrong (a grammar at its wits' end, NaN) is its own affair."""
        try:
            if isinstance(token, EngineError):
                raise token
            return self._append(generation, token)
        except EngineError as error:
            logger.warning("request %s failed: %s", generation.request.request_id, error)
            self.abort(generation.request.request_id)
            return EngineOutput(request_id=generation.request.request_id, finish_reason="error", error=error)

    def _append(self, generation: _Generation, token: SampledToken) -> EngineOutput:
        request = generation.request
        was_structured = generation.is_structured
        request.output_token_ids.append(token.token_id)
        if request.forced_token_ids:
            request.forced_token_ids.popleft()
        finish_reason = self._finish_reason(generation, token.token_id, was_structured=was_structured)
        if finish_reason is not None:
            del self._generations[request.request_id]
            self._scheduler.finish(request)
        is_stop_token = finish_reason == "stop" and token.token_id in request.sampling_params.stop_token_ids
        return EngineOutput(
            request_id=request.request_id,
            new_token_ids=(token.token_id,),
            new_logprobs=None if token.logprobs is None else (token.logprobs,),
            finish_reason=finish_reason,
            stop_reason=token.token_id if is_stop_token else None,
            num_cached_tokens=request.num_cached_tokens,
        )

    def _finish_reason(
        self, generation: _Generation, token_id: int, *, was_structured: bool
    ) -> EngineFinishReason | None:
        request = generation.request
        if token_id in generation.row.stop_token_ids or _advance_grammar(
            generation, token_id, is_structured=was_structured
        ):
            return "stop"
        max_tokens = request.sampling_params.max_tokens
        if max_tokens is not None and len(request.output_token_ids) >= max_tokens:
            return "length"
        return "length" if request.num_tokens >= self._max_model_len else None

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineError(f"the engine is dead ({self._death}); make a new one.") from self._death

    def _die(self, cause: BaseException) -> list[EngineOutput]:
        error = cause if isinstance(cause, EngineError) else EngineError(f"a step failed: {cause!r}")
        error.__cause__ = None if error is cause else cause
        self._death = error
        outputs = [
            EngineOutput(request_id=request_id, finish_reason="error", error=error) for request_id in self._generations
        ]
        self._generations.clear()
        self._runner.release()
        self._scheduler = Scheduler(self.config, self._runner.num_blocks)
        return outputs


def _sampling_row(generation: _Generation) -> SamplingRow:
    request = generation.request
    if request.grammar is None and not request.forced_token_ids and not generation.holds_end:
        return generation.row
    return replace(
        generation.row,
        allowed_mask=request.grammar.allowed_mask() if request.grammar and generation.is_structured else None,
        forced_token_id=request.forced_token_ids[0] if request.forced_token_ids else None,
        bans_stop_tokens=generation.holds_end and not generation.is_structured,
    )


def _advance_grammar(generation: _Generation, token_id: int, *, is_structured: bool) -> bool:
    """Tell the grammar of a token it ruled over. True: it is finished, and so is the answer."""
    request = generation.request
    if token_id in request.reasoning_end_token_ids:
        generation.has_reasoned = True
    if request.grammar is None or not is_structured:
        return False
    if not request.grammar.accept(token_id):
        raise EngineError(f"the grammar of request {request.request_id!r} refused token {token_id}, which it allowed.")
    return request.grammar.is_finished()
