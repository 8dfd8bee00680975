"""What a caller of LocalBackend.stream holds: an iterator over the deltas of one request, which aborts when dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from tusi.backends.local.request_group import CompletionGroup
from tusi.backends.outbox import Item, Sink, Wants, always
from tusi.backends.protocol import ChatDelta


class LocalStream:
    """A DeltaStream. prompt, prompt_token_ids: what the model was given.

    Closing it, leaving its `with` block or dropping the last reference to it aborts what still runs.
    """

    def __init__(
        self,
        group: CompletionGroup,
        abort: Callable[[CompletionGroup], None],
        *,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: tuple[int, ...],
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self._group = group
        self._abort = abort
        self._is_over = False

    def __iter__(self) -> LocalStream:
        return self

    def __next__(self) -> ChatDelta:
        if self._is_over:
            raise StopIteration
        item = self._group.items.get()
        if isinstance(item, ChatDelta):
            return item
        self._is_over = True
        if isinstance(item, BaseException):
            raise item
        raise StopIteration

    def read_at_the_end(self) -> None:
        """Say that nothing will be read before everything has come, which saves work a token."""
        self._group.wants = _nothing

    def rest(self) -> list[ChatDelta]:
        """All deltas from here on, once the last one has come. Raises the error that ended them.

        For who wants the whole answer: a reader that is woken for every token takes the processor from the engine.
        """
        items: list[Item] = []
        has_ended = threading.Event()

        def sink(item: Item) -> None:
            items.append(item)
            if not isinstance(item, ChatDelta):
                has_ended.set()

        self.forward(sink, _nothing)
        has_ended.wait()
        self._is_over = True
        end = items.pop()
        if isinstance(end, BaseException):
            raise end
        return [item for item in items if isinstance(item, ChatDelta)]

    def forward(self, sink: Sink, wants: Wants = always) -> None:
        """See outbox.PushedStream. The sink is called on the engine's thread, between two steps."""
        self._group.wants = wants
        self._group.items.forward(sink)

    def close(self) -> None:
        """Abort the request if it is still running; nothing more is read."""
        if not self._is_over:
            self._is_over = True
            if not self._group.is_over:
                self._abort(self._group)

    def __enter__(self) -> LocalStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _nothing() -> bool:
    """The Wants of who reads at the end."""
    return False
