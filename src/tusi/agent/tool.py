"""What a tool is to the agent loop, and the one place where tools are run.

In: a call as the model wrote it. Out: the content of the tool's message, always: whatever goes wrong becomes a text
that tells the model what to do, never a stack trace. Knows nothing of backends or of any particular tool.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tusi.chat.messages import ImagePart, Message, Part, TextPart, ToolCall, VideoPart
from tusi.chat.tool_schemas import ToolSchema
from tusi.core.errors import ConfigError, RequestError, TusiError

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 30.0
MAX_RESULT_CHARS = 20_000
"""A longer text is cut, with a note, so that one result cannot fill the context."""
ERROR_PREFIX = "error: "
_SHOWN_CHARS = 80


class ToolError(RequestError):
    """A call that a tool cannot answer. The message is for the model: what was wrong, what to call instead."""


@dataclass(frozen=True, slots=True)
class ConversationMedia:
    """What a tool may look at.

    originals: pictures and videos that people sent, in order; an index into pictures counts from 0 among them. What
    tools returned is not in it: a crop's coordinates are always those of an original.
    """

    originals: tuple[ImagePart | VideoPart, ...] = ()

    @property
    def pictures(self) -> tuple[ImagePart, ...]:
        """The pictures among the originals."""
        return tuple(part for part in self.originals if isinstance(part, ImagePart))

    @classmethod
    def of(cls, messages: Iterable[Message]) -> ConversationMedia:
        """The media of a conversation."""
        said = (message for message in messages if message.role != "tool")
        return cls(tuple(part for message in said for part in message.content if not isinstance(part, TextPart)))


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call looks at: a picture (its index among the pictures that people sent) and a box in 0-1000 of it.

    bbox_2d None: the whole picture.
    """

    img_idx: int
    bbox_2d: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to. is_error: the content says what went wrong."""

    content: tuple[Part, ...]
    is_error: bool = False


class Tool(Protocol):
    """Something that the model can call. Several threads may call the same tool at once.

    A tool that looks at a picture may have a method origin(arguments, media) -> Origin, which raises as `call` does.
    """

    @property
    def name(self) -> str:
        """The name by which the model calls it."""
        ...

    @property
    def schema(self) -> ToolSchema:
        """The OpenAI tool object that goes into the prompt."""
        ...

    def call(self, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        """The content of the tool's message. Raises ToolError or another TusiError, which the model will read."""
        ...


class ToolRunner:
    """Runs the calls of one conversation, each within a time limit."""

    def __init__(self, tools: Sequence[Tool], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) != len(tools):
            names = [tool.name for tool in tools]
            raise ConfigError(f"two tools have the same name among {names}; a name must be one tool's. Drop one.")
        self._timeout = timeout

    @property
    def schemas(self) -> tuple[ToolSchema, ...]:
        """What the model is offered, in the order in which the tools were given."""
        return tuple(tool.schema for tool in self._tools.values())

    def run(self, call: ToolCall, media: ConversationMedia) -> tuple[Part, ...]:
        """The content of the message that answers a call. Total: it never raises."""
        return self.outcome(call, media).content

    def outcome(self, call: ToolCall, media: ConversationMedia) -> Outcome:
        """As run, with whether it went wrong."""
        try:
            tool = self._find(call.name)
            return Outcome(_bounded(self._within_time(tool, _read(call.arguments), media)))
        except TusiError as error:
            return Outcome(error_content(str(error)), is_error=True)

    def origin(self, call: ToolCall, media: ConversationMedia) -> Origin | None:
        """What a call looks at; None if it looks at nothing, or cannot. Total."""
        try:
            find = getattr(self._find(call.name), "origin", None)
            origin: Origin | None = None if find is None else find(_read(call.arguments), media)
        except TusiError:
            return None
        return origin

    def _find(self, name: str) -> Tool:
        tool = self._tools.get(name)
        if tool is None:
            offered = ", ".join(self._tools) or "none"
            raise ToolError(f"there is no tool {name[:_SHOWN_CHARS]!r}; offered are: {offered}; call one of these")
        return tool

    def _within_time(self, tool: Tool, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        """Call in a thread of its own: Python cannot stop a call that hangs, but the conversation can go on."""
        results: queue.SimpleQueue[tuple[Part, ...] | TusiError] = queue.SimpleQueue()
        thread = threading.Thread(
            target=lambda: results.put(_caught(tool, arguments, media)), name=f"tool-{tool.name}", daemon=True
        )
        thread.start()
        try:
            result = results.get(timeout=self._timeout)
        except queue.Empty:
            raise ToolError(
                f"{tool.name} gave no result within {self._timeout:g} seconds; ask it for less, or go on without it"
            ) from None
        if isinstance(result, TusiError):
            raise result
        return result


def error_content(message: str) -> tuple[Part, ...]:
    """A tool's message that reports a failure."""
    return (TextPart(ERROR_PREFIX + message),)


def check_arguments(arguments: Mapping[str, Any], *, required: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises ToolError for an argument that is missing or that the tool would ignore."""
    needed, known = tuple(required), (*required, *optional)
    missing = [name for name in needed if name not in arguments]
    unknown = [str(name)[:_SHOWN_CHARS] for name in arguments if name not in known]
    if missing or unknown:
        problem = f"{missing[0]!r} is missing" if missing else f"there is no argument {unknown[0]!r}"
        raise ToolError(f"{problem}; the arguments are: {', '.join(known)}; call again with these")


def chosen_picture(media: ConversationMedia, index: object) -> ImagePart:
    """The picture that img_idx names; without it the only one. Raises ToolError."""
    return media.pictures[chosen_index(media, index)]


def chosen_index(media: ConversationMedia, index: object) -> int:
    """The number of that picture. Raises ToolError."""
    pictures = media.pictures
    if not pictures:
        videos = sum(isinstance(part, VideoPart) for part in media.originals)
        shown = f"only {videos} video(s)" if videos else "no picture"
        raise ToolError(f"the conversation has {shown}; this tool works on pictures; answer from what you have seen")
    if index is None and len(pictures) == 1:
        return 0
    is_number = isinstance(index, int | float) and not isinstance(index, bool) and float(index).is_integer()
    if not is_number or not 0 <= int(index) < len(pictures):  # type: ignore[call-overload]
        given = "is missing" if index is None else f"is {str(index)[:40]}"
        raise ToolError(
            f"img_idx {given}; the conversation has {len(pictures)} picture(s), counted from 0 without crops; "
            f"give a whole number from 0 to {len(pictures) - 1}"
        )
    return int(index)  # type: ignore[call-overload, no-any-return]


def _read(arguments: str) -> Mapping[str, Any]:
    try:
        loaded = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the arguments {arguments[:_SHOWN_CHARS]!r} are not JSON; write one JSON object") from error
    if not isinstance(loaded, dict):
        raise ToolError(f"the arguments are {arguments[:_SHOWN_CHARS]!r}; write one JSON object")
    return loaded


def _caught(tool: Tool, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...] | TusiError:
    try:
        return tool.call(arguments, media)
    except TusiError as error:
        return error
    except Exception as error:  # a tool may be anybody's code; its bugs must not end the conversation
        logger.warning("tool %s failed", tool.name, exc_info=True)
        return ToolError(f"{tool.name} failed ({type(error).__name__}); try other arguments, or go on without it")


def _bounded(content: tuple[Part, ...]) -> tuple[Part, ...]:
    """At most MAX_RESULT_CHARS of text in all; pictures have the processor's own limits."""
    left = MAX_RESULT_CHARS
    kept: list[Part] = []
    for part in content:
        if isinstance(part, TextPart):
            if len(part.text) > left:
                kept.append(TextPart(f"{part.text[:left]}\n[cut here: over {MAX_RESULT_CHARS} characters]"))
                left = 0
                continue
            left -= len(part.text)
        kept.append(part)
    return tuple(kept)
