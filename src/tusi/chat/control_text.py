"""Keeps what users and tools say from becoming control tokens, while a template mixes it with its own text.

Before rendering, the first character of every string in the conversation that spells, or begins to spell, a control
token is replaced by a private marker; afterwards the markers become that character again, and whatever control string
starts at such a place is known to be literal. A control string that two texts form together is caught too, since its
first character comes from one of them.

Tags that are read as text (`<think>`, `<tool_call>`, ...) are left alone, as the reference does: templates look for
them in assistant turns, and a user may show one to the model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tusi.chat.tags import TEXT_TAGS

# Control tokens of the family that are not of the form <|...|>. All of that form count, known or not.
_FAMILY = ("<s>", "</s>", "<unk>", *(f"<mask:{n}>" for n in range(8)))
_PIPED = r"<\|[^<>|]{1,64}\|>"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of rendered text. control: it spells a control string. literal: that string is somebody's own words."""

    text: str
    control: bool = False
    literal: bool = False


class ControlText:
    """Knows the control strings of one checkpoint. special: those it declares, besides the family's own."""

    def __init__(self, special: Iterable[str] = ()) -> None:
        declared = {token for token in special if token not in TEXT_TAGS and not re.fullmatch(_PIPED, token)}
        tokens = sorted({*_FAMILY, *declared}, key=len, reverse=True)
        self._control = re.compile("|".join([*map(re.escape, tokens), _PIPED]))
        # What may become a control string once other text follows: a proper beginning of one, at the end.
        beginnings = {token[:size] for token in tokens for size in range(1, len(token)) if token.startswith("<")}
        ordered = sorted(beginnings, key=len, reverse=True)
        beginning = "|".join([r"<\|[^<>|]{0,64}\|?", *map(re.escape, ordered)])
        # One character, looking ahead: a control string inside what looked like the beginning of another is seen too.
        self._protected = re.compile(rf"(?=(?:{self._control.pattern})|(?:{beginning})\Z).", re.DOTALL)

    def shield(self, conversation: Any) -> tuple[Any, Shield]:
        """A copy of plain data with all its strings (keys too) protected, and what undoes it."""
        # The marker holds a hash of all the text, so no text can hold the marker.
        dumped = json.dumps(conversation, sort_keys=True, default=str).encode()
        shield = Shield(f"q{hashlib.sha256(dumped).hexdigest()[:32]}x", self._control)
        return self._protect(conversation, shield), shield

    def _protect(self, value: Any, shield: Shield) -> Any:
        if isinstance(value, str):
            return self._protected.sub(lambda match: shield.mark(match[0]), value)
        if isinstance(value, dict):
            return {self._protect(key, shield): self._protect(item, shield) for key, item in value.items()}
        if isinstance(value, list):
            return [self._protect(item, shield) for item in value]
        return value


_MARK = re.compile(r"(q[0-9a-f]{32}x)([0-9a-f]+)z")
"""A marker, of this rendering or of none. Only its first letter is a q, so two never overlap."""


class Shield:
    """The markers of one rendering. They are plain letters and digits, which templates' filters leave as they are."""

    def __init__(self, prefix: str, control: re.Pattern[str]) -> None:
        self._prefix = prefix
        self._control = control

    def mark(self, char: str) -> str:
        """What stands for char."""
        return f"{self._prefix}{ord(char):x}z"

    def spans(self, rendered: str) -> list[Span]:
        """The rendered text, markers undone, cut at its control strings."""
        pieces: list[str] = []
        marked: set[int] = set()
        at = length = 0
        for match in _MARK.finditer(rendered):
            if match[1] != self._prefix:
                continue
            pieces += (rendered[at : match.start()], chr(int(match[2], 16)))
            length += match.start() - at
            marked.add(length)
            length += 1
            at = match.end()
        text = "".join((*pieces, rendered[at:]))
        spans: list[Span] = []
        at = 0
        for match in self._control.finditer(text):
            if match.start() > at:
                spans.append(Span(text[at : match.start()]))
            spans.append(Span(match[0], control=True, literal=match.start() in marked))
            at = match.end()
        return [*spans, Span(text[at:])] if at < len(text) else spans
