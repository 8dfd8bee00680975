"""From the threads that make answers to the event loop that sends them.

A stream is a backend's, or the agent loop's over many of them. Opening one takes a thread for as long as media are
fetched and decoded; after that a backend's stream pushes (`outbox.PushedStream`), and only those that cannot, such as
an agent's, keep their thread. Nothing bounds what waits for the loop, as a completion cannot be longer than its
max_tokens.

Each time that the loop is woken costs about what a small model's token costs. So who was just sent something gets the
next at the next beat, which all requests share: one waking serves them all, and a model that needs longer for a token
notices nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from tusi.agent.types import AgentEvent, Delta, TurnEnd
from tusi.backends.collect import joined
from tusi.backends.outbox import pump
from tusi.backends.protocol import ChatDelta, Usage

StreamItem = ChatDelta | AgentEvent

BEAT = 0.01
"""Seconds. Less than a screen takes to show the next picture."""


class ItemStream(Protocol):
    """A backend's deltas, or the events of an agent. Every generator is one."""

    def __next__(self) -> StreamItem: ...

    def close(self) -> None:
        """Abort what runs."""
        ...


OpenStream = Callable[[], ItemStream]


def sum_of(first: Usage, second: Usage) -> Usage:
    """Token counts of two requests together."""
    return Usage(**{name: getattr(first, name) + getattr(second, name) for name in Usage.__slots__})


class Mailbox:
    """Calls functions on the event loop, from any thread. All that are posted while it is busy cost it one wake-up.

    A step of the engine says something to every client; waking the loop for each would cost a system call a token.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._posted: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._is_woken = False

    def post(self, call: Callable[[], None]) -> None:
        """Call it soon, in the order of posting. Once the loop is closed nobody waits any more: then it is dropped."""
        with self._lock:
            self._posted.append(call)
            if self._is_woken:
                return
            self._is_woken = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            self._posted.clear()

    def _deliver(self) -> None:
        with self._lock:
            posted, self._posted = self._posted, deque()
            self._is_woken = False
        for call in posted:
            call()


class AsyncItems:
    """What the streams of one request give, as it comes. All public methods are for the loop's thread.

    open_streams: called in threads, as they fetch and decode media. abort: asks for the end of what runs, from any
    thread. ttft, usage: known once the first token, the last delta have been read. is_cancelled: it was closed before
    its end. beat: see BEAT.
    """

    def __init__(
        self,
        open_streams: Sequence[OpenStream],
        abort: Callable[[], None],
        executor: Executor,
        mailbox: Mailbox,
        *,
        beat: float = BEAT,
    ) -> None:
        self._open_streams = open_streams
        self._abort = abort
        self._executor = executor
        self._mailbox = mailbox
        self._beat = beat
        self._items: deque[StreamItem] = deque()  # appended to by the threads that make them
        self._news = asyncio.Event()
        self._wants_item = True
        self._streams: list[ItemStream] = []  # kept: dropping one would abort it
        self._num_opening = self._num_open = len(open_streams)
        self._refusal: BaseException | None = None
        self._error: BaseException | None = None
        self.is_cancelled = False
        self._started_at = time.monotonic()
        self.ttft: float | None = None
        self.usage = Usage()

    @property
    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self._started_at

    async def start(self) -> None:
        """Begin. Returns once every stream is open; raises what one of them is refused with."""
        for open_stream in self._open_streams:
            self._executor.submit(self._open, open_stream)
        while self._num_opening and self._refusal is None:
            await self._wait()
        if self._refusal is not None:
            raise self._refusal

    async def batches(self) -> AsyncIterator[list[StreamItem]]:
        """All that has come since the last batch, again and again. Raises the error that ended a stream.

        Tokens that came together are one delta where they say the same kind of thing.
        """
        while self._items or self._num_open or self._error is not None:
            if self._items:
                next_beat = (time.monotonic() // self._beat + 1) * self._beat
                yield self._take()
                await self._wait_until(next_beat)
            elif self._error is not None:
                raise self._error
            else:
                await self._wait_for_an_item()

    def close(self) -> None:
        """Abort the request if it still runs. Does not block."""
        if self._num_open and not self.is_cancelled:
            self.is_cancelled = True  # first: a request that is still being prepared is aborted when it is opened
            self._abort()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _wait_for_an_item(self) -> None:
        """Or for the end."""
        self._wants_item = True
        if not self._items:  # none came before the line above
            await self._wait()
        self._wants_item = False

    async def _wait_until(self, moment: float) -> None:
        """Or to the end of all streams."""
        while self._num_open and (rest := moment - time.monotonic()) > 0:
            timer = asyncio.get_running_loop().call_later(rest, self._news.set)
            await self._wait()
            timer.cancel()

    def _take(self) -> list[StreamItem]:
        """All that has come."""
        items = [self._items.popleft() for _ in range(len(self._items))]
        if self.ttft is None and any(_has_token(item) for item in items):
            self.ttft = self.elapsed
        for item in items:
            if isinstance(item, ChatDelta | TurnEnd) and item.usage is not None:
                self.usage = sum_of(self.usage, item.usage)
        return _joined(items)

    def _open(self, open_stream: OpenStream) -> None:
        """In a thread."""
        try:
            stream = open_stream()
        except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
            refusal = error
            self._mailbox.post(lambda: self._note_refusal(refusal))
            return
        self._streams.append(stream)
        self._mailbox.post(self._note_open)
        pump(stream, self._sink, lambda: self.is_cancelled, lambda: self._wants_item)
        if self.is_cancelled:  # perhaps before the backend knew of the request
            self._abort()

    def _sink(self, item: StreamItem | BaseException | None) -> None:
        """In whatever thread makes the items."""
        if item is None or isinstance(item, BaseException):
            self._mailbox.post(lambda: self._note_end(item))
            return
        self._items.append(item)
        if self._wants_item:
            self._wants_item = False  # two threads may both find it set, which costs a wake-up and no more
            self._mailbox.post(self._news.set)

    def _note_open(self) -> None:
        self._num_opening -= 1
        self._news.set()

    def _note_refusal(self, error: BaseException) -> None:
        self._refusal = self._refusal or error
        self._note_end(error)

    def _note_end(self, error: BaseException | None) -> None:
        self._num_open -= 1
        if not self._num_open:
            self._streams.clear()  # they hold our sink: without this, only the garbage collector would free them
        self._error = self._error or error
        self._news.set()


def _joined(items: list[StreamItem]) -> list[StreamItem]:
    """An agent's events stay as they are: few come at once."""
    deltas = [item for item in items if isinstance(item, ChatDelta)]
    return [*joined(deltas)] if len(deltas) == len(items) else items


def _has_token(item: StreamItem) -> bool:
    delta = item.delta if isinstance(item, Delta) else item
    return isinstance(delta, ChatDelta) and bool(delta.token_ids)
