"""The n completions of one prompt on their way through the engine: tokens in, deltas into an outbox for one reader.

The outbox needs no bound of its own: a completion puts in one delta a token and never more than max_tokens, so a slow
reader holds up nobody and a lost one leaves behind what its completions are allowed to be long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tusi.backends.local.logprobs import token_logprobs
from tusi.backends.local.output_processor import Command, CompletionProcessor, EndOfCompletion
from tusi.backends.outbox import Outbox, Wants, always
from tusi.backends.protocol import ChatDelta, Usage
from tusi.backends.structured_outputs import MatcherGrammar
from tusi.core.errors import EngineError
from tusi.engine.core import EngineCore
from tusi.engine.outputs import EngineOutput
from tusi.engine.request import Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: what the engine runs, and what makes its tokens into deltas."""

    request: Request
    processor: CompletionProcessor
    grammar: MatcherGrammar | None = None


class CompletionGroup:
    """An engine_thread.RequestGroup that puts deltas into `items`. prompt_usage: the counts known beforehand."""

    def __init__(self, request_id: str, completions: Sequence[Completion], prompt_usage: Usage) -> None:
        self._request_id = request_id
        self._started = time.perf_counter()
        self._ttft = 0.0
        self.items = Outbox()
        self._completions = {completion.request.request_id: completion for completion in completions}
        self._prompt_usage = prompt_usage
        self._num_cached_tokens = 0
        self._num_unfinished = len(completions)
        self._is_over = False
        self.wants: Wants = always

    @property
    def is_over(self) -> bool:
        """Whether the last item is out."""
        return self._is_over

    @property
    def requests(self) -> Sequence[Request]:
        """What is given to the engine."""
        return [completion.request for completion in self._completions.values()]

    def start(self, core: EngineCore) -> None:
        """The engine has taken the requests."""
        for completion in self._completions.values():
            _apply(completion, completion.processor.start(), core)

    def on_output(self, output: EngineOutput, core: EngineCore) -> None:
        """Make the tokens into deltas, and tell the engine what follows from them."""
        completion = self._completions[output.request_id]
        self._num_cached_tokens = max(self._num_cached_tokens, output.num_cached_tokens)
        self._ttft = self._ttft or time.perf_counter() - self._started
        # Log-probabilities stay with the text of their own token: some readers show those of a part alone.
        is_now = bool(output.new_logprobs) or self.wants()
        push = completion.processor.push if is_now else completion.processor.push_later
        last = len(output.new_token_ids) - 1
        for at, token_id in enumerate(output.new_token_ids):
            logprobs = token_logprobs(output.new_logprobs[at] if output.new_logprobs else None)
            delta, command = push(token_id, logprobs, _end(output) if at == last else None)
            if delta is not None:
                self._put(delta)
            _apply(completion, command, core)
            if completion.processor.finished:
                return

    def on_abort(self) -> None:
        """End every unfinished completion."""
        for completion in self._completions.values():
            if not completion.processor.finished:
                self._put(completion.processor.end(EndOfCompletion("abort")))

    def fail(self, error: EngineError) -> None:
        """Nothing more will come."""
        if not self._is_over:
            self._is_over = True
            self.items.put(error)

    def _put(self, delta: ChatDelta) -> None:
        if self._is_over:
            return
        self._num_unfinished -= delta.finish_reason is not None
        if self._num_unfinished:
            self.items.put(delta)
            return
        self._is_over = True
        usage = self._usage()
        logger.info(
            "request %s: %d tokens in (%d cached), %d out, ttft %.3f s, e2e %.3f s, %s",
            self._request_id,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            self._ttft,
            time.perf_counter() - self._started,
            delta.finish_reason,
        )
        self.items.put(replace(delta, usage=usage))
        self.items.put(None)

    def _usage(self) -> Usage:
        processors = [completion.processor for completion in self._completions.values()]
        return replace(
            self._prompt_usage,
            completion_tokens=sum(processor.num_output_tokens for processor in processors),
            reasoning_tokens=sum(processor.num_reasoning_tokens for processor in processors),
            cached_tokens=self._num_cached_tokens,
        )


def _end(output: EngineOutput) -> EndOfCompletion | None:
    if output.finish_reason == "stop":
        return EndOfCompletion("stop", output.stop_reason)
    return EndOfCompletion("length") if output.finish_reason == "length" else None


def _apply(completion: Completion, command: Command | None, core: EngineCore) -> None:
    if command is None:
        return
    request_id = completion.request.request_id
    if command.force:
        core.force_tokens(request_id, command.force)
        if completion.grammar is not None:
            completion.grammar.skip_lead()
    if command.hold_end is not None:
        core.hold_end(request_id, hold=command.hold_end)
    if command.abort:
        core.abort(request_id)
