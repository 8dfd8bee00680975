"""Shows a run of the agent as it comes: thoughts and tool calls on standard error, the answer on standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from tusi.backends.protocol import ChatDelta
from tusi.chat.messages import ImagePart, Part, TextPart, ToolCall
from tusi.cli.console import is_dimmable
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# What a model writes must not steer the terminal: control characters but tab and newline are shown as this.
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_MAX_ARGUMENTS = 300
_MAX_RESULT = 1000


class AnswerWriter:
    """Thoughts to standard error, dimmed on a terminal; the answer, and nothing else, to standard output."""

    def __init__(self, *, show_thoughts: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._show_thoughts = show_thoughts
        self._dims = is_dimmable(self._err)
        self._cleans = self._out.isatty()
        self._is_thinking = False
        self._last = ""
        self.content = ""
        self.reasoning = ""

    def write(self, delta: ChatDelta) -> None:
        """Show one piece; content and reasoning hold what came so far in this turn."""
        self.content += delta.content
        self.reasoning += delta.reasoning
        if delta.reasoning and self._show_thoughts:
            self._think(delta.reasoning)
        if delta.content:
            self._end_thoughts()
            text = delta.content.translate(_CONTROLS) if self._cleans else delta.content
            self._out.write(text)
            self._out.flush()
            self._last = text[-1:]

    def call(self, call: ToolCall) -> None:
        """Show that a tool is about to run."""
        self.finish()
        self.content = self.reasoning = ""  # what comes next is another turn
        self._note(f"-> {call.name} {_cut(one_line(call.arguments), _MAX_ARGUMENTS)}\n")

    def result(self, content: Sequence[Part]) -> None:
        """Show what the tool said."""
        self._note("".join(f"<- {_cut(line, _MAX_RESULT)}\n" for line in describe_result(content)) + "\n")

    def finish(self) -> None:
        """End the line, also after an answer that was cut."""
        self._end_thoughts()
        if self._last not in ("", "\n"):
            self._out.write("\n")
            self._out.flush()
        self._last = ""

    def _note(self, text: str) -> None:
        self._err.write(text.translate(_CONTROLS) if self._err.isatty() else text)
        self._err.flush()

    def _think(self, text: str) -> None:
        if self._dims:
            text = f"{_DIM}{text.translate(_CONTROLS)}{_PLAIN}"
        self._err.write(text)
        self._err.flush()
        self._is_thinking = True

    def _end_thoughts(self) -> None:
        if self._is_thinking:
            self._err.write("\n\n")
            self._err.flush()
            self._is_thinking = False


def describe_result(content: Sequence[Part]) -> list[str]:
    """A tool's result in lines: its texts, and the sizes of its pictures."""
    return [line for part in content for line in _describe(part)] or ["nothing"]


def one_line(text: str) -> str:
    """The same without line breaks and runs of white space."""
    return " ".join(text.split())


def picture_size(part: ImagePart) -> tuple[int, int]:
    """(width, height) of a picture that a tool returned."""
    return open_picture(part.source, MediaLimits()).size


def _describe(part: Part) -> list[str]:
    if isinstance(part, TextPart):
        return part.text.splitlines()
    if isinstance(part, ImagePart):
        return ["a picture of {} x {} pixels".format(*picture_size(part))]
    return ["a video"]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text) - length} more characters)"
