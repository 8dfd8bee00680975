"""Deltas put together."""

from __future__ import annotations

import pytest

from tusi.backends.collect import collect, joined
from tusi.backends.outputs import BatchError, CompletionOutput, Logprob, RequestOutput
from tusi.backends.protocol import ChatChoice, ChatDelta, TokenLogprobs, ToolCallDelta, Usage
from tusi.chat.messages import ToolCall
from tusi.core.errors import EngineError, RequestError


def test_pieces_of_interleaved_completions_are_joined() -> None:
    deltas = [
        ChatDelta(index=0, text="a", reasoning="a", token_ids=(1,)),
        ChatDelta(index=1, text="x", content="x", token_ids=(9,), finish_reason="length"),
        ChatDelta(
            index=0, text="b", content="b", tool_calls=(ToolCallDelta(index=1, id="q", name="g", arguments="{"),)
        ),
        ChatDelta(index=0, tool_calls=(ToolCallDelta(index=0, id="p", name="f", arguments="{}"),)),
        ChatDelta(
            index=0,
            token_ids=(2, 3),
            tool_calls=(ToolCallDelta(index=1, arguments="}"),),
            finish_reason="tool_calls",
            thinking_truncated=True,
            usage=Usage(completion_tokens=4),
        ),
    ]
    (first, second), usage = collect(deltas, n=2)
    assert (first.text, first.reasoning, first.content, first.token_ids) == ("ab", "a", "b", (1, 2, 3))
    assert first.tool_calls == (ToolCall("p", "f", "{}"), ToolCall("q", "g", "{}"))
    assert (first.finish_reason, first.thinking_truncated) == ("tool_calls", True)
    assert (second.reasoning, second.content, second.finish_reason) == (None, "x", "length")
    assert usage.completion_tokens == 4


def test_neighbours_of_the_same_kind_become_one() -> None:
    call = ChatDelta(tool_calls=(ToolCallDelta(index=0, arguments="1"),))
    chosen = TokenLogprobs(1, -0.5, {})
    deltas = [
        ChatDelta(text="a", reasoning="a", token_ids=(1,)),
        ChatDelta(text="b", reasoning="b", token_ids=(2, 3)),
        ChatDelta(token_ids=(4,)),  # half a character: its log-probability is of no text yet
        ChatDelta(text="c", content="c", token_ids=(5,), logprobs=(chosen,)),
        ChatDelta(text="d", content="d", token_ids=(6,), logprobs=(chosen, chosen)),
        ChatDelta(index=1, text="e", content="e"),
        call,
        call,
        ChatDelta(text="f", content="f"),
        ChatDelta(text="g", content="g", finish_reason="stop"),
    ]
    assert [*joined(deltas)] == [
        ChatDelta(text="ab", reasoning="ab", token_ids=(1, 2, 3)),
        ChatDelta(token_ids=(4,)),
        ChatDelta(text="cd", content="cd", token_ids=(5, 6), logprobs=(chosen,) * 3),
        *deltas[5:],
    ]


def test_a_stream_that_stops_without_a_reason_is_our_fault() -> None:
    with pytest.raises(EngineError, match="without a finish_reason after 1 tokens"):
        collect([ChatDelta(token_ids=(5,))])


def test_log_probabilities_in_vllms_shape() -> None:
    choice = ChatChoice(
        index=0,
        text="ab",
        reasoning=None,
        content="ab",
        tool_calls=(),
        token_ids=(7, 8),
        logprobs=(TokenLogprobs(7, -0.5, {7: -0.5, 3: -1.0}), TokenLogprobs(8, -4.0, {2: -0.1})),
        finish_reason="stop",
    )
    output = CompletionOutput.from_choice(choice)
    assert output.logprobs == [
        {7: Logprob(-0.5, 1), 3: Logprob(-1.0, 2)},
        {2: Logprob(-0.1, 1), 8: Logprob(-4.0, None)},
    ]
    assert output.cumulative_logprob == -4.5


def test_a_batch_error_points_at_the_first() -> None:
    outputs = [RequestOutput(request_id=str(i), prompt=None, prompt_token_ids=None) for i in range(3)]
    error = BatchError(outputs, {2: RequestError("late"), 1: RequestError("early")})
    assert "2 of 3" in str(error)
    assert "number 1: early" in str(error)
    assert 'on_error="return"' in str(error)
