"""What a request says, on its way from whoever makes it to its one reader: waiting in a queue, or pushed at once.

Pulling (`get`) costs a blocked thread a request, and a switch between threads a token. Who has many requests to follow
(the server's event loop) has them pushed instead: `forward` names a sink, which is called on the producer's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tusi.backends.protocol import ChatDelta, DeltaStream

Item = ChatDelta | BaseException | None
"""Deltas, an error after which nothing comes, or None at the end."""
Sink = Callable[[Item], None]


@runtime_checkable
class PushedStream(Protocol):
    """A DeltaStream that can also push."""

    def forward(self, sink: Sink) -> None:
        """Call sink with every item that waits, in this thread, and with every later one, in the producer's.

        The sink must neither block nor raise. From now on the stream is not iterated; closing it still aborts.
        """
        ...


class Outbox:
    """Unbounded: a completion puts in one delta a token and never more than max_tokens."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._sink: Sink | None = None
        self._lock = threading.Lock()

    def put(self, item: Item) -> None:
        """Hand over the next item."""
        with self._lock:
            if self._sink is None:
                self._queue.put(item)
            else:
                self._sink(item)

    def get(self) -> Item:
        """The next item, waited for."""
        return self._queue.get()

    def forward(self, sink: Sink) -> None:
        """See PushedStream."""
        with self._lock:
            while not self._queue.empty():
                sink(self._queue.get())
            self._sink = sink


def pump(stream: DeltaStream, sink: Sink, is_stopped: Callable[[], bool]) -> None:
    """Give the sink all that a stream says and then None, or the error that ended it.

    Returns at once for a stream that pushes; reads the others to their end, or until is_stopped() between two items.
    """
    if isinstance(stream, PushedStream):
        stream.forward(sink)
        return
    end: Item = None
    try:
        try:
            while not is_stopped():  # asked before the first delta too: it may take a long prompt
                delta = next(stream, None)
                if delta is None:
                    break
                sink(delta)
        finally:
            stream.close()
    except BaseException as error:  # noqa: BLE001  # raised again where it is read
        end = error
    sink(end)
