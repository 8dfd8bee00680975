"""From a backend's blocking stream to the event loop: one thread a request reads, the loop awaits.

Closing asks the backend to abort the request; the thread, which alone touches the stream, then sees its end. Nothing
bounds the queue between them, as a completion cannot be longer than its max_tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from tusi.backends.protocol import ChatDelta, DeltaStream, Usage


@dataclass(frozen=True, slots=True)
class _Started:
    """The backend has taken the request."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """Nothing more comes; error says why, if it is not that all was said."""

    error: BaseException | None = None


class AsyncDeltas:
    """The deltas of one request.

    open_stream: backend.stream with its request; called in the thread, as it fetches and decodes media.
    abort: backend.abort with the request's id. ttft, usage: known once the first token, the last delta have come.
    is_cancelled: it was closed before its end.
    """

    def __init__(self, open_stream: Callable[[], DeltaStream], abort: Callable[[], None], executor: Executor) -> None:
        self._open_stream = open_stream
        self._abort = abort
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ChatDelta | _Started | _Ended] = asyncio.Queue()
        self.is_cancelled = False
        self._is_over = False
        self._started_at = time.monotonic()
        self.ttft: float | None = None
        self.usage = Usage()

    @property
    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self._started_at

    async def start(self) -> None:
        """Give the request to the backend. Raises what it refuses the request with."""
        self._executor.submit(self._read)
        item = await self._queue.get()
        if isinstance(item, _Ended):
            self._is_over = True
            if item.error is not None:
                raise item.error

    async def __aiter__(self) -> AsyncIterator[ChatDelta]:
        while not self._is_over:
            item = await self._queue.get()
            if isinstance(item, ChatDelta):
                if self.ttft is None and item.token_ids:
                    self.ttft = self.elapsed
                self.usage = item.usage or self.usage
                yield item
            elif isinstance(item, _Ended):
                self._is_over = True
                if item.error is not None:
                    raise item.error

    def close(self) -> None:
        """Abort the request if it still runs. Does not block."""
        if not self._is_over and not self.is_cancelled:
            self.is_cancelled = True  # first: a request that is still being prepared is closed when it is opened
            self._abort()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            stream = self._open_stream()
            try:
                self._post(_Started())
                while not self.is_cancelled:  # asked before the first delta too: it may take a long prompt
                    delta = next(stream, None)
                    if delta is None:
                        break
                    self._post(delta)
            finally:
                stream.close()
        except BaseException as raised:  # noqa: BLE001  # raised again where it is awaited
            error = raised
        self._post(_Ended(error))

    def _post(self, item: ChatDelta | _Started | _Ended) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: the server has stopped, and nobody waits any more
            self.is_cancelled = True
