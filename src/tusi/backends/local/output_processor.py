"""From the tokens of one completion to deltas: text, stop strings, reasoning, tool calls, thinking that ends.

In: tokens as the engine draws them. Out: a ChatDelta for each (for many, where nobody waits for them), and what the
engine must be told (`Command`). Runs between two steps of the engine, so that a forced token comes before the next
drawn one, and so that every step waits for it. Knows no engine and no thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tusi.backends.local.stop_strings import StopStringCutter
from tusi.backends.local.thinking import Advice, ThinkingControl, ThinkingTokens
from tusi.backends.protocol import ChatDelta, FinishReason, TokenLogprobs, ToolCallDelta
from tusi.chat.detokenizer import IncrementalDetokenizer
from tusi.chat.messages import ToolCall
from tusi.chat.stream import ParsedDelta, StreamParser
from tusi.engine.sampling_params import SamplingParams

REPETITION = "repetition"
# Tokens that may wait to become text. More would make the step long in which their turn comes.
_MAX_WAITING_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Command:
    """What the engine must be told before its next step.

    force: tokens that come next, whatever the logits say (a clean close of the reasoning).
    hold_end: True: the completion may not end just now; False: it may again; None: as it was.
    abort: the completion is over although the engine does not know.
    """

    force: tuple[int, ...] = ()
    hold_end: bool | None = None
    abort: bool = False


@dataclass(frozen=True, slots=True)
class EndOfCompletion:
    """Why a completion ended."""

    finish_reason: FinishReason
    stop_reason: str | int | None = None


class CompletionProcessor:
    """Follows one completion: start(), then push() for each token; `finished` once the last delta was made.

    last_prompt_token_id: what a close that is forced before the first token follows.
    max_tool_calls: the completion ends with this call.
    must_answer: an end of sequence inside the reasoning would break a promise (a grammar waits for the answer).
    """

    def __init__(
        self,
        index: int,
        params: SamplingParams,
        *,
        detokenizer: IncrementalDetokenizer,
        parser: StreamParser,
        thinking: ThinkingControl,
        thinking_tokens: ThinkingTokens,
        last_prompt_token_id: int | None,
        must_answer: bool = False,
        max_tool_calls: int | None = None,
    ) -> None:
        self.index = index
        self.finished = False
        self.num_output_tokens = 0
        self._params = params
        self._detokenizer = detokenizer
        self._parser = parser
        self._thinking = thinking
        self._thinking_tokens = thinking_tokens
        self._last_token_id = last_prompt_token_id
        self._must_answer = must_answer
        self._max_tool_calls = max_tool_calls
        self._cutter = StopStringCutter(params.stop, include_stop_str_in_output=params.include_stop_str_in_output)
        self._waiting_ids: list[int] = []
        self._waiting_logprobs: list[TokenLogprobs] = []
        self._num_calls = 0
        self._has_answer = False
        self._holds_end = False

    @property
    def num_reasoning_tokens(self) -> int:
        """Tokens of the reasoning so far; the mark that ends it and forced tokens are not counted."""
        return self._thinking.num_reasoning_tokens

    def start(self) -> Command | None:
        """What must be done before the first step: a thinking budget of 0 closes the reasoning at once."""
        return self._command(self._thinking.start())

    def push(
        self, token_id: int, logprobs: tuple[TokenLogprobs, ...] = (), end: EndOfCompletion | None = None
    ) -> tuple[ChatDelta, Command | None]:
        """Take note of a token, and of the engine's word (if any) that it was the last."""
        return self._read(self._observe(token_id, logprobs), end)

    def push_later(
        self, token_id: int, logprobs: tuple[TokenLogprobs, ...] = (), end: EndOfCompletion | None = None
    ) -> tuple[ChatDelta | None, Command | None]:
        """As push, where nobody reads a delta before the last has come.

        The token may become text later, with others (the delta is None then): that is cheaper, and what comes out in
        the end does not depend on how it is cut.
        """
        advice = self._observe(token_id, logprobs)
        if end is None and advice is not Advice.END_ANSWER and not self._must_read_now:
            return None, self._command(advice)
        return self._read(advice, end)

    def end(self, end: EndOfCompletion) -> ChatDelta:
        """The completion is over without another token (an abort). Returns the last delta."""
        return self._delta(self._take_text(None), end)

    def _observe(self, token_id: int, logprobs: tuple[TokenLogprobs, ...]) -> Advice | None:
        self.num_output_tokens += 1
        self._last_token_id = token_id
        self._waiting_ids.append(token_id)
        self._waiting_logprobs += logprobs
        return self._thinking.observe(token_id)

    def _read(self, advice: Advice | None, end: EndOfCompletion | None) -> tuple[ChatDelta, Command | None]:
        """Make the tokens that wait into a delta."""
        text, own_end = self._cut(self._take_text(end))
        if own_end is None and end is None and advice is Advice.END_ANSWER and self._may_end:
            own_end = EndOfCompletion("length", REPETITION)
        delta = self._delta(text, own_end or end)
        if delta.finish_reason is not None and end is None:
            return delta, Command(abort=True)
        return delta, None if end is not None else self._command(advice)

    @property
    def _must_read_now(self) -> bool:
        """Whether the text decides how the completion goes on, or enough tokens wait for it."""
        return (
            len(self._waiting_ids) >= _MAX_WAITING_TOKENS
            or bool(self._params.stop)
            or self._max_tool_calls is not None
            or (self._thinking.thinking_truncated and not self._has_answer)
        )

    @property
    def _may_end(self) -> bool:
        return self.num_output_tokens > self._params.min_tokens

    def _take_text(self, end: EndOfCompletion | None) -> str:
        """The text of the tokens that wait. One of stop_token_ids that ended the completion has none unless asked."""
        ids = self._waiting_ids
        is_stop_token = end is not None and isinstance(end.stop_reason, int)
        if is_stop_token and not self._params.include_stop_str_in_output:
            ids = ids[:-1]
        return "".join([self._detokenizer.push(token_id) for token_id in ids])

    def _cut(self, text: str) -> tuple[str, EndOfCompletion | None]:
        """Let text past the stop strings. They end the answer only: a thought may spell them."""
        if not self._params.stop or self._parser.in_reasoning:
            return text, None
        cut = self._cutter.push(text, may_stop=self._may_end)
        return cut.text, None if cut.stop is None else EndOfCompletion("stop", cut.stop)

    def _delta(self, text: str, end: EndOfCompletion | None) -> ChatDelta:
        """The delta of the tokens that wait."""
        token_ids, logprobs = tuple(self._waiting_ids), tuple(self._waiting_logprobs)
        self._waiting_ids.clear()
        self._waiting_logprobs.clear()
        if end is not None:
            text += self._flush(end)
        parsed = self._parser.push(text)
        if end is None and len(parsed) == 1 and parsed[0].tool_call is None:
            return self._plain_delta(text, parsed[0], token_ids, logprobs)
        if end is None and self._has_called_enough(parsed):
            end = EndOfCompletion("stop")
        if end is not None:
            parsed += self._parser.finish()
            self.finished = True
        reasoning = "".join(piece.reasoning for piece in parsed)
        content = "".join(piece.content for piece in parsed)
        tool_calls = tuple(self._call_delta(piece.tool_call) for piece in parsed if piece.tool_call is not None)
        self._has_answer = self._has_answer or bool(tool_calls) or content.strip() != ""
        return ChatDelta(
            index=self.index,
            text=text,
            reasoning=reasoning,
            content=content,
            tool_calls=tool_calls,
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason=None if end is None else self._finish_reason(end),
            stop_reason=None if end is None else end.stop_reason,
            thinking_truncated=end is not None
            and (self._thinking.thinking_truncated or self._parser.thinking_truncated),
        )

    def _plain_delta(
        self, text: str, piece: ParsedDelta, token_ids: tuple[int, ...], logprobs: tuple[TokenLogprobs, ...]
    ) -> ChatDelta:
        """What most tokens are: some text of one kind, no call, not the end."""
        self._has_answer = self._has_answer or piece.content.strip() != ""
        return ChatDelta(
            index=self.index,
            text=text,
            reasoning=piece.reasoning,
            content=piece.content,
            token_ids=token_ids,
            logprobs=logprobs,
        )

    def _has_called_enough(self, parsed: Sequence[ParsedDelta]) -> bool:
        num_calls = self._num_calls + sum(piece.tool_call is not None for piece in parsed)
        return self._max_tool_calls is not None and num_calls >= self._max_tool_calls

    def _flush(self, end: EndOfCompletion) -> str:
        """Text that was held back. After a stop string nothing more is shown."""
        if isinstance(end.stop_reason, str) and end.stop_reason != REPETITION:
            return ""
        rest = self._detokenizer.flush()
        return rest if self._parser.in_reasoning else self._cutter.push(rest, may_stop=False).text

    def _call_delta(self, call: ToolCall) -> ToolCallDelta:
        index = self._num_calls
        self._num_calls += 1
        return ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)

    def _finish_reason(self, end: EndOfCompletion) -> FinishReason:
        by_itself = end.finish_reason == "stop" and end.stop_reason is None
        return "tool_calls" if by_itself and self._num_calls else end.finish_reason

    def _command(self, advice: Advice | None) -> Command | None:
        force: tuple[int, ...] = ()
        if advice is Advice.CLOSE_REASONING:
            force = self._thinking_tokens.closing_ids(self._last_token_id)
        hold_end = self._wants_end_held()
        changed = hold_end != self._holds_end
        self._holds_end = hold_end
        return Command(force=force, hold_end=hold_end if changed else None) if force or changed else None

    def _wants_end_held(self) -> bool:
        """After a cut reasoning an answer must come; before a structured one, the reasoning must come to its end."""
        if self._thinking.in_reasoning:
            return self._must_answer
        return self._thinking.thinking_truncated and not self._must_answer and not self._has_answer
