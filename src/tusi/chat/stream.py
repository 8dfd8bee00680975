"""Splits what the model writes into reasoning, content and tool calls, while it is being written.

    [<think>] reasoning \n</think>\n\n [<response>\n] content [\n</response>\n] { <tool_call>\n{json}\n</tool_call>\n }

One state machine, driven piece by piece (`StreamParser`) or once (`parse`): the result does not depend on how the
text is cut. It is total: it never raises on any text, and what is not well-formed stays content, character by
character. It knows no tokens and no wire format.

White space rules. Dropped: one newline after a leading `<think>` and one before `</think>`; newlines at the start of
the content after `</think>` or `<response>`; newlines next to a tool call or around `</response>`, except that
newlines after a call stay when content stands on both sides. Everything else is kept as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tusi.chat.messages import ToolCall
from tusi.chat.tags import RESPONSE_CLOSE, RESPONSE_OPEN, THINK_CLOSE, THINK_OPEN, TOOL_CALL_OPEN
from tusi.chat.tool_calls import OpenBlock

MakeId = Callable[[int], str]
EventKind = Literal["reasoning", "content", "structure", "call"]


@dataclass(frozen=True, slots=True)
class ParsedDelta:
    """What one step added. Never empty: at least one field is set. A tool call comes whole, in one delta."""

    reasoning: str = ""
    content: str = ""
    tool_call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """A whole completion. thinking_truncated: it ended before its reasoning did, so there is no answer in it."""

    reasoning: str = ""
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A run of the input and what it was. The texts of all events, joined, are the input."""

    kind: EventKind
    text: str
    call: ToolCall | None = None


class _State(enum.IntEnum):  # integers: looked up for every token of every answer, and Enum's own hash is slow
    START = enum.auto()
    THINK_OPENED = enum.auto()
    REASONING = enum.auto()
    ANSWER = enum.auto()
    CONTENT = enum.auto()
    RESPONSE_CLOSE = enum.auto()
    CALL = enum.auto()


def default_call_id(index: int) -> str:
    """`call_0`, `call_1`, ...: unique within one completion only."""
    return f"call_{index}"


class StreamParser:
    """Push text as it comes, then finish once.

    starts_in_reasoning: the prompt ended with an open `<think>` (`RenderedPrompt.starts_in_reasoning`).
    tools_offered: False leaves `<tool_call>` blocks in the content. make_id: id of the tool call with that index.
    """

    def __init__(
        self, starts_in_reasoning: bool, *, tools_offered: bool = True, make_id: MakeId = default_call_id
    ) -> None:
        self._splitter = Splitter(starts_in_reasoning, tools_offered=tools_offered, make_id=make_id)

    @property
    def in_reasoning(self) -> bool:
        """True while the next character would belong to the reasoning."""
        return self._splitter.in_reasoning

    @property
    def thinking_truncated(self) -> bool:
        """True once finished inside the reasoning."""
        return self._splitter.finished and self._splitter.in_reasoning

    def push(self, text: str) -> list[ParsedDelta]:
        """What is certain now that text has come. May be nothing: the start of a tag is held back."""
        return _deltas(self._splitter.push(text))

    def finish(self) -> list[ParsedDelta]:
        """What was held back. Call once, at the end."""
        return _deltas(self._splitter.finish())


def parse(
    text: str, *, starts_in_reasoning: bool, tools_offered: bool = True, make_id: MakeId = default_call_id
) -> ParsedOutput:
    """Split a whole completion: StreamParser driven once."""
    parser = StreamParser(starts_in_reasoning, tools_offered=tools_offered, make_id=make_id)
    deltas = parser.push(text) + parser.finish()
    return ParsedOutput(
        reasoning="".join(delta.reasoning for delta in deltas),
        content="".join(delta.content for delta in deltas),
        tool_calls=tuple(delta.tool_call for delta in deltas if delta.tool_call is not None),
        thinking_truncated=parser.thinking_truncated,
    )


def _deltas(events: Sequence[Event]) -> list[ParsedDelta]:
    """Events without the structure; neighbours of one kind joined."""
    if len(events) == 1 and events[0].kind == "content":
        return [ParsedDelta(content=events[0].text)]
    deltas: list[ParsedDelta] = []
    last: EventKind | None = None
    for event in events:
        if event.kind == "structure":
            continue
        if event.kind == "call":
            deltas.append(ParsedDelta(tool_call=event.call))
        elif event.kind == "reasoning":
            before = deltas.pop().reasoning if last == "reasoning" else ""
            deltas.append(ParsedDelta(reasoning=before + event.text))
        else:
            before = deltas.pop().content if last == "content" else ""
            deltas.append(ParsedDelta(content=before + event.text))
        last = event.kind
    return deltas


class Splitter:
    """The state machine itself. Gives events for every character of its input, dropped ones included."""

    def __init__(self, starts_in_reasoning: bool, *, tools_offered: bool, make_id: MakeId) -> None:
        self.finished = False
        self._starts_in_reasoning = starts_in_reasoning
        self._tools_offered = tools_offered
        self._make_id = make_id
        self._state = _State.START
        self._buffer = ""
        self._events: list[Event] = []
        self._num_calls = 0
        self._had_content = False
        self._drop_newlines = False  # those at the start of the next content
        self._in_response = False
        self._block = OpenBlock(0)

    @property
    def in_reasoning(self) -> bool:
        """True while what comes next belongs to the reasoning."""
        if self._state is _State.START:
            return self._starts_in_reasoning
        return self._state in (_State.THINK_OPENED, _State.REASONING)

    def push(self, text: str) -> list[Event]:
        """Take text; give the events that are certain."""
        if self.finished:
            raise ValueError("push() after finish(): make a new parser for each completion.")
        if self._is_plain(text):  # most tokens, and there is one for each sequence in each step
            self._had_content = self._had_content or self._state is _State.CONTENT
            return [Event("content" if self._state is _State.CONTENT else "reasoning", text)]
        self._buffer += text
        return self._run(final=False)

    def finish(self) -> list[Event]:
        """Take the end of the text; give the rest."""
        events = self._run(final=True)
        self.finished = True
        return events

    def _is_plain(self, text: str) -> bool:
        """True if nothing was held back and nothing in text can be part of a tag or of the white space around one."""
        return (
            (self._state is _State.CONTENT or self._state is _State.REASONING)
            and not (self._buffer or self._drop_newlines)
            and text != ""
            and "<" not in text
            and "\n" not in text
        )

    def _run(self, *, final: bool) -> list[Event]:
        while _STEPS[self._state](self, final):
            pass
        events, self._events = self._events, []
        return events

    # Each step looks at the start of the buffer, takes what it is sure of and returns whether to go on.

    def _start(self, final: bool) -> bool:
        tag_at = len(self._buffer) - len(self._buffer.lstrip("\n"))
        if self._buffer.startswith(THINK_OPEN, tag_at):
            self._take(tag_at + len(THINK_OPEN), "structure")
            self._state = _State.THINK_OPENED
            return True
        if not final and THINK_OPEN.startswith(self._buffer[tag_at:]):
            return False
        if final and not self._buffer:
            return False
        self._state = _State.REASONING if self._starts_in_reasoning else _State.CONTENT
        return True

    def _think_opened(self, final: bool) -> bool:
        if not self._buffer:
            return False
        if self._buffer.startswith("\n"):
            self._take(1, "structure")
        self._state = _State.REASONING
        return True

    def _reasoning(self, final: bool) -> bool:
        tag_at = self._buffer.find(THINK_CLOSE)
        if tag_at < 0:
            keep = 0 if final else _held_back(self._buffer, (THINK_CLOSE,), max_newlines=1)
            self._take(len(self._buffer) - keep, "reasoning")
            return False
        end = tag_at - 1 if self._buffer.startswith("\n", tag_at - 1) and tag_at > 0 else tag_at
        self._take(end, "reasoning")
        self._take(tag_at - end + len(THINK_CLOSE), "structure")
        self._drop_newlines = True
        self._state = _State.ANSWER
        return True

    def _answer(self, final: bool) -> bool:
        tag_at = len(self._buffer) - len(self._buffer.lstrip("\n"))
        if self._buffer.startswith(RESPONSE_OPEN, tag_at):
            self._take(tag_at + len(RESPONSE_OPEN), "structure")
            self._in_response = True
        elif not final and RESPONSE_OPEN.startswith(self._buffer[tag_at:]):
            return False
        self._state = _State.CONTENT
        return True

    def _content(self, final: bool) -> bool:
        tags = self._content_tags()
        found = [(at, tag) for tag in tags if (at := self._buffer.find(tag)) >= 0]
        if not found:
            keep = 0 if final else self._held_back_content(tags)
            self._take_content(len(self._buffer) - keep)
            return False
        tag_at, tag = min(found)
        self._take_content(len(self._buffer[:tag_at].rstrip("\n")))
        lead = len(self._buffer) - len(self._buffer.lstrip("\n"))
        self._block = OpenBlock(lead + len(tag))
        self._state = _State.CALL if tag == TOOL_CALL_OPEN else _State.RESPONSE_CLOSE
        return True

    def _content_tags(self) -> tuple[str, ...]:
        tags = (TOOL_CALL_OPEN,) if self._tools_offered else ()
        return (*tags, RESPONSE_CLOSE) if self._in_response else tags

    def _held_back_content(self, tags: Sequence[str]) -> int:
        if self._drop_newlines and not self._buffer.strip("\n"):
            return len(self._buffer)  # whether they are dropped depends on what follows
        return _held_back(self._buffer, tags, max_newlines=None)

    def _response_close(self, final: bool) -> bool:
        """The buffer starts with newlines and `</response>`: the end of the wrapper if only calls or the end follow."""
        rest = self._buffer[self._block.start :].lstrip("\n")
        call_follows = self._tools_offered and rest.startswith(TOOL_CALL_OPEN)
        call_may_follow = not rest or (self._tools_offered and TOOL_CALL_OPEN.startswith(rest))
        if not final and not call_follows and call_may_follow:
            return False
        self._state = _State.CONTENT
        if call_follows or not rest:
            self._take(self._block.start, "structure")
            self._in_response = False
            self._drop_newlines = True
        else:
            self._take_content(self._block.start)
        return True

    def _call(self, final: bool) -> bool:
        """The buffer starts with newlines and `<tool_call>`."""
        verdict = self._block.judge(self._buffer, final=final)
        if verdict is None:
            return False
        self._state = _State.CONTENT
        if verdict.end == 0:
            # Not a call: only its tag becomes content, so that a good call inside or after it is still found.
            self._take_content(self._block.start)
            return True
        call = ToolCall(self._make_id(self._num_calls), verdict.name, verdict.arguments)
        self._num_calls += 1
        self._take(verdict.end, "call", call)
        self._drop_newlines = True
        return True

    def _take_content(self, size: int) -> None:
        text = self._buffer[:size]
        if self._drop_newlines and text:
            lead = size - len(text.lstrip("\n"))
            # Between two stretches of content the newlines are the author's; at the edges they are the format's.
            self._take(lead, "content" if self._had_content and lead < size else "structure")
            self._drop_newlines = False
            size -= lead
        self._had_content = self._had_content or size > 0
        self._take(size, "content")

    def _take(self, size: int, kind: EventKind, call: ToolCall | None = None) -> None:
        if size > 0:
            self._events.append(Event(kind, self._buffer[:size], call))
            self._buffer = self._buffer[size:]


_STEPS: Mapping[_State, Callable[[Splitter, bool], bool]] = {
    _State.START: Splitter._start,
    _State.THINK_OPENED: Splitter._think_opened,
    _State.REASONING: Splitter._reasoning,
    _State.ANSWER: Splitter._answer,
    _State.CONTENT: Splitter._content,
    _State.RESPONSE_CLOSE: Splitter._response_close,
    _State.CALL: Splitter._call,
}


def _held_back(text: str, tags: Sequence[str], *, max_newlines: int | None) -> int:
    """Length of the end of text that may turn out to be newlines and the start of a tag."""
    if not tags:
        return 0
    partial = max(_overlap(text, tag) for tag in tags)
    end = len(text) - partial
    newlines = 0
    while newlines < end and newlines != max_newlines and text[end - newlines - 1] == "\n":
        newlines += 1
    return partial + newlines


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of text that is a beginning, but not the whole, of tag."""
    at = text.find(tag[0], max(0, len(text) - len(tag) + 1))
    while at >= 0:
        if tag.startswith(text[at:]):
            return len(text) - at
        at = text.find(tag[0], at + 1)
    return 0
