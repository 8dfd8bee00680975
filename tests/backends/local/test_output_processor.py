"""Tokens that become text later, many at once, make the same completion and the same commands as one by one."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.backends.byte_tokenizer import ByteTokenizer
from tusi.backends.collect import collect
from tusi.backends.local.output_processor import Command, CompletionProcessor, EndOfCompletion
from tusi.backends.local.thinking import ThinkingControl, ThinkingTokens
from tusi.backends.protocol import ChatDelta, TokenLogprobs
from tusi.chat.detokenizer import IncrementalDetokenizer
from tusi.chat.stream import StreamParser
from tusi.engine.sampling_params import SamplingParams

TOKENIZER = ByteTokenizer()
TOKENS = ThinkingTokens.from_tokenizer(TOKENIZER)
CALL = '<tool_call>\n{"name": "zoom", "arguments": {"a": 1}}\n</tool_call>'
PIECES = st.sampled_from(
    ["a cat", " ", "\n", "\n\n", "</think>", "<think>", "é", "図", CALL, "<tool_call>", "END", "<"]
)
LOOPS = st.builds(lambda unit, count: unit * count, st.sampled_from(["ab", "x", "1 2 3 "]), st.integers(100, 900))


def make_processor(
    params: SamplingParams, limit: int | None, must_answer: bool, calls: int | None
) -> CompletionProcessor:
    return CompletionProcessor(
        0,
        params,
        detokenizer=IncrementalDetokenizer(TOKENIZER, skip_special_tokens=True),
        parser=StreamParser(True),
        thinking=ThinkingControl(TOKENS, starts_in_reasoning=True, limit=limit, break_repetition=True),
        thinking_tokens=TOKENS,
        last_prompt_token_id=None,
        must_answer=must_answer,
        max_tool_calls=calls,
    )


def drive(
    processor: CompletionProcessor, token_ids: list[int], end: EndOfCompletion, *, later: bool
) -> tuple[list[ChatDelta], list[Command | None]]:
    """Play the engine: tokens in order, forced ones first, until the completion or the tokens end."""
    deltas, commands, waiting = [], [processor.start()], deque(token_ids)
    push = processor.push_later if later else processor.push
    while waiting:
        command = commands[-1]
        if command is not None and command.force:
            waiting.extendleft(reversed(command.force))
        token_id = waiting.popleft()
        delta, command = push(token_id, (TokenLogprobs(token_id, -1.0),), None if waiting else end)
        commands.append(command)
        if delta is not None:
            deltas.append(delta)
        if processor.finished:
            return deltas, commands
    return [*deltas, processor.end(EndOfCompletion("abort"))], commands


@example(["hm</think>a cat END and more"], ("END",), None, False, None, EndOfCompletion("length"), False)
@example(["hm" * 40, "</think>", CALL, "more"], (), None, False, 1, EndOfCompletion("length"), False)
@example(["hm" * 40, "a cat </think> a cat"], (), 5, False, None, EndOfCompletion("stop"), False)
@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.one_of(PIECES, PIECES, PIECES, LOOPS), min_size=1, max_size=40),
    stop=st.sampled_from([(), (), ("END",), ("ND", "cat EN")]),
    limit=st.sampled_from([None, 0, 5, 50]),
    must_answer=st.booleans(),
    calls=st.sampled_from([None, None, 1]),
    end=st.sampled_from([EndOfCompletion("length"), EndOfCompletion("stop"), EndOfCompletion("stop", 12)]),
    include_stop=st.booleans(),
)
def test_text_that_is_made_later_is_the_same(
    pieces: list[str],
    stop: tuple[str, ...],
    limit: int | None,
    must_answer: bool,
    calls: int | None,
    end: EndOfCompletion,
    include_stop: bool,
) -> None:
    params = SamplingParams(stop=stop, include_stop_str_in_output=include_stop, max_tokens=10_000)
    token_ids = [token_id for piece in pieces for token_id in TOKENIZER.encode(piece)]
    (one_by_one, commands), (together, later_commands) = (
        drive(make_processor(params, limit, must_answer, calls), token_ids, end, later=later) for later in (False, True)
    )
    assert later_commands == commands
    assert collect(together) == collect(one_by_one)
    assert len(together) <= len(one_by_one)


def test_an_abort_loses_nothing_that_waits() -> None:
    processor = make_processor(SamplingParams(), None, False, None)
    for token_id in TOKENIZER.encode("hm</think>yes"):
        delta, _ = processor.push_later(token_id)
        assert delta is None
    last = processor.end(EndOfCompletion("abort"))
    assert (last.reasoning, last.content, len(last.token_ids)) == ("hm", "yes", 6)


def test_no_more_than_some_tokens_wait() -> None:
    processor = make_processor(replace(SamplingParams(), repetition_break=False), None, False, None)
    sizes = [len(delta.token_ids) for i in range(500) if (delta := processor.push_later(20 + i % 50)[0]) is not None]
    assert sizes
    assert max(sizes) <= 64
