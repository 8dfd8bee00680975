"""From blocking streams to the event loop: one thread a stream reads, the loop awaits.

A stream is a backend's, or the agent loop's over many of them. Closing asks for the request to be aborted; the threads,
which alone touch the streams, then see their end. Nothing bounds the queue between them, as a completion cannot be
longer than its max_tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from tusi.agent.types import AgentEvent, Delta, TurnEnd
from tusi.backends.protocol import ChatDelta, Usage

StreamItem = ChatDelta | AgentEvent


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


@dataclass(frozen=True, slots=True)
class _Started:
    """The backend has taken the request."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """Nothing more comes; error says why, if it is not that all was said."""

    error: BaseException | None = None


class AsyncItems:
    """What the streams of one request give, as it comes.

    open_streams: called in threads, as they fetch and decode media. abort: asks for the end of what runs, from any
    thread. ttft, usage: known once the first token, the last delta have come. is_cancelled: it was closed before its
    end.
    """

    def __init__(self, open_streams: Sequence[OpenStream], abort: Callable[[], None], executor: Executor) -> None:
        self._open_streams = open_streams
        self._abort = abort
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[StreamItem | _Started | _Ended] = asyncio.Queue()
        self._early: deque[StreamItem] = deque()
        self._num_open = len(open_streams)
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
            self._executor.submit(self._read, open_stream)
        num_waiting = self._num_open
        while num_waiting:
            item = await self._queue.get()
            if isinstance(item, _Started):
                num_waiting -= 1
            elif isinstance(item, _Ended):
                self._end(item)
            else:
                self._early.append(item)

    async def __aiter__(self) -> AsyncIterator[StreamItem]:
        while self._early or self._num_open:
            item = self._early.popleft() if self._early else await self._queue.get()
            if isinstance(item, _Ended):
                self._end(item)
            elif not isinstance(item, _Started):
                self._note(item)
                yield item

    def close(self) -> None:
        """Abort the request if it still runs. Does not block."""
        if self._num_open and not self.is_cancelled:
            self.is_cancelled = True  # first: a request that is still being prepared is closed when it is opened
            self._abort()

    def _end(self, item: _Ended) -> None:
        self._num_open -= 1
        if item.error is not None:
            raise item.error

    def _note(self, item: StreamItem) -> None:
        delta = item.delta if isinstance(item, Delta) else item
        if isinstance(delta, ChatDelta) and self.ttft is None and delta.token_ids:
            self.ttft = self.elapsed
        if isinstance(item, ChatDelta | TurnEnd) and item.usage is not None:
            self.usage = sum_of(self.usage, item.usage)

    def _read(self, open_stream: OpenStream) -> None:
        error: BaseException | None = None
        try:
            stream = open_stream()
            try:
                self._post(_Started())
                while not self.is_cancelled:  # asked before the first delta too: it may take a long prompt
                    item = next(stream, None)
                    if item is None:
                        break
                    self._post(item)
            finally:
                stream.close()
        except BaseException as raised:  # noqa: BLE001  # raised again where it is awaited
            error = raised
        self._post(_Ended(error))

    def _post(self, item: StreamItem | _Started | _Ended) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: the server has stopped, and nobody waits any more
            self.is_cancelled = True
