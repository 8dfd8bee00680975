"""How an endpoint writes an answer: what `generation` asks of it, and what the endpoints' own forms share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from tusi.backends.protocol import Usage
from tusi.server.bridge import StreamItem
from tusi.server.errors import ErrorReply

Payload = dict[str, Any]


class AnswerFormat(Protocol):
    """One answer in the making. Either it is streamed (opening, chunks, closing) or added up (add, whole)."""

    @property
    def names_events(self) -> bool:
        """Whether each event says its type in a line of its own, and the stream ends without [DONE]."""
        ...

    def opening(self) -> Iterator[Payload]:
        """Events that come before any token."""
        ...

    def chunks(self, item: StreamItem) -> Iterator[Payload]:
        """The events that an item makes."""
        ...

    def closing(self, usage: Usage) -> Iterator[Payload]:
        """Events after the last item."""
        ...

    def failure(self, reply: ErrorReply) -> Payload:
        """The last event of a stream that fails."""
        ...

    def add(self, item: StreamItem) -> None:
        """Take an item of an answer that is sent in one piece."""
        ...

    def whole(self, usage: Usage) -> Payload:
        """The answer in one piece, once every item was added."""
        ...
