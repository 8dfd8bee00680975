"""What a request says, on its way from whoever makes it to its one reader: waiting in a queue, or pushed at once.

Pulling (`get`) costs a blocked thread a request, and a switch between threads a token. Who has many requests to follow
(the server's event loop) has them pushed instead: `forward` names a sink, which is called on the producer's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar, cast, runtime_checkable

from tusi.backends.protocol import ChatDelta

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Item = ChatDelta | BaseException | None
"""Deltas, an error after which nothing comes, or None at the end."""
Sink = Callable[[Item], None]
Wants = Callable[[], bool]
"""Whether the reader waits just now. What it does not wait for may come later, put together with what comes next."""


def always() -> bool:
    """The Wants of who reads each item as it comes."""
    return True


class Stream(Protocol[T_co]):
    """What can be read to its end: a DeltaStream, an agent's events, any generator."""

    def __next__(self) -> T_co: ...

    def close(self) -> None:
        """End what makes the items."""
        ...


@runtime_checkable
class PushedStream(Protocol):
    """A DeltaStream that can also push."""

    def forward(self, sink: Sink, wants: Wants = always) -> None:
        """Call sink with every item that waits, in this thread, and with every later one, in the producer's.

        The sink must neither block nor raise. From now on the stream is not iterated; closing it still aborts. wants:
        asked on the producer's thread, often; what saves no work may be pushed whatever it says.
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


def pump(
    stream: Stream[T],
    sink: Callable[[T | BaseException | None], None],
    is_stopped: Callable[[], bool],
    wants: Wants = always,
) -> None:
    """Give the sink all that a stream says and then None, or the error that ended it.

    Returns at once for a stream that pushes; reads the others to their end, or until is_stopped() between two items.
    """
    if isinstance(stream, PushedStream):
        stream.forward(cast(Sink, sink), wants)
        return
    end: BaseException | None = None
    try:
        try:
            while not is_stopped():  # asked before the first delta too: it may take a long prompt
                try:
                    item = next(stream)
                except StopIteration:
                    break
                sink(item)
        finally:
            stream.close()
    except BaseException as error:  # noqa: BLE001  # raised again where it is read
        end = error
    sink(end)
