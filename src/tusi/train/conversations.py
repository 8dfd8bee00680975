"""Conversations in a file of JSON lines, as other programs and `--trace` write them.

A line is {"messages": [...], "tools": [...]} in OpenAI's shape (tools may be left out; pictures and videos are parts of
a message's content: data URLs, web addresses or paths), or a line of `tusi ask --trace`, which is the same with
everything that tools answered. Blank lines are passed over; anything else is an error that names its line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tusi.agent.trace import trace_from_json
from tusi.chat.openai import parse_messages, parse_tools
from tusi.core.errors import ConfigError, RequestError
from tusi.train.encode import Conversation

_FIELDS = ("messages", "tools")
_TRACE_FIELDS = ("version", "turns")


def read_conversations(path: Path, limit: int) -> list[Conversation]:
    """The first `limit` of a file; media are not opened. Raises ConfigError for what cannot be read."""
    conversations: list[Conversation] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if len(conversations) == limit:
                    break
                if line.strip():
                    conversations.append(_conversation(line, f"{path}, line {number}"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Give a file of JSON lines.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error}). Give a file of JSON lines.") from error
    if not conversations:
        raise ConfigError(f'{path} holds no conversation. Write one a line: {{"messages": [...]}}.')
    return conversations


def _conversation(line: str, place: str) -> Conversation:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{place} is not JSON ({error}). Correct it or remove it.") from error
    if not isinstance(value, dict) or "messages" not in value:
        raise ConfigError(f'{place} is no conversation. Write {{"messages": [...]}}, one a line.')
    if all(name in value for name in _TRACE_FIELDS):
        return _traced(value, place)
    return _shaped(value, place)


def _traced(value: Mapping[str, Any], place: str) -> Conversation:
    try:
        trace = trace_from_json(value)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ConfigError(
            f"{place} is not a trace of this version ({type(error).__name__}: {error}). Write it anew, or remove it."
        ) from error
    return Conversation(messages=tuple(trace.messages), tools=tuple(trace.tools))


def _shaped(value: Mapping[str, Any], place: str) -> Conversation:
    if unknown := sorted(set(value) - {*_FIELDS}):
        raise ConfigError(f"{place} has the field {unknown[0]!r}; there are messages and tools. Remove it.")
    try:
        return Conversation(messages=parse_messages(value["messages"]), tools=parse_tools(value.get("tools")))
    except RequestError as error:
        raise ConfigError(f"{place}: {error}") from error
