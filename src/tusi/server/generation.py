"""Runs one request from its arrival to its end: room in the house, the backend, a client who leaves, the metrics.

Both completions endpoints hand it what to ask and how an answer is written; it never looks into either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from tusi.backends.protocol import Backend, Usage
from tusi.core.errors import CapacityError, RequestError
from tusi.server.answer_format import AnswerFormat, Payload
from tusi.server.bridge import AsyncItems, Mailbox, OpenStream
from tusi.server.config import ServerConfig
from tusi.server.errors import ModelNotFound, describe
from tusi.server.facts import ModelFacts
from tusi.server.file_parts import FileParts
from tusi.server.metrics import Metrics, Outcome
from tusi.server.pace import Pace
from tusi.server.server_tools import ServerTools
from tusi.server.sse import DONE, EventStream, event

CLIENT_CLOSED_REQUEST = 499


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that was read and understood. abort: ends whatever of it runs, from any thread."""

    endpoint: str
    stream: bool
    open_streams: tuple[OpenStream, ...]
    abort: Callable[[], None]
    answer: AnswerFormat


@dataclass(slots=True)
class _Visit:
    """A request in the house."""

    job: Job
    items: AsyncItems
    watcher: asyncio.Task[None] | None
    outcome: Outcome = "disconnected"


class Generator:
    """All requests of one server."""

    def __init__(
        self,
        backend: Backend,
        facts: ModelFacts,
        config: ServerConfig,
        files: FileParts,
        tools: ServerTools | None = None,
    ) -> None:
        self.backend = backend
        self.facts = facts
        self.config = config
        self.files = files
        self.tools = tools or ServerTools()
        self.metrics = Metrics(facts)
        self.model_names = config.served_model_names or (backend.model,)
        self._executor = ThreadPoolExecutor(max_workers=config.max_requests, thread_name_prefix="tusi-server")
        self._num_requests = 0
        self._pace = Pace()
        self._mailbox: Mailbox | None = None

    def check_model(self, name: str | None) -> str:
        """The name to answer under. Raises ModelNotFound."""
        if name is not None and name not in self.model_names:
            raise ModelNotFound(
                f"model: {name[:80]!r} is not served here. Use {' or '.join(map(repr, self.model_names))}.",
                param="model",
            )
        return name or self.model_names[0]

    async def respond(self, http: Request, job: Job) -> Response:
        """Answer a request, whole or as a stream of events. Raises what the backend refuses it with."""
        visit = self._enter(http, job)
        try:
            await visit.items.start()
            if job.stream:
                return EventStream(_events(visit), lambda: self._leave(visit))
            body = await _whole(visit)
        except BaseException as error:
            visit.outcome = _outcome(error)
            self._leave(visit)
            raise
        self._leave(visit)
        if visit.items.is_cancelled:
            return Response(status_code=CLIENT_CLOSED_REQUEST)  # nobody reads it
        return JSONResponse(body)

    def close(self) -> None:
        """Give back the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _enter(self, http: Request, job: Job) -> _Visit:
        count = len(job.open_streams)
        if count > self.config.max_requests:
            raise RequestError(
                f"the request holds {count} prompts, and the server takes {self.config.max_requests} at once. Send "
                "fewer at a time.",
                param="prompt",
            )
        if self._num_requests + count > self.config.max_requests:
            self.metrics.record(job.endpoint, "busy", Usage(), ttft=None, seconds=0.0)
            raise CapacityError(
                f"{self._num_requests} requests are in the house, and it takes {self.config.max_requests}. Try again "
                "in a moment.",
                retry_after=self._pace.retry_after(time.monotonic()),
            )
        self._num_requests += count
        self.metrics.in_flight.set(self._num_requests)
        if self._mailbox is None:
            self._mailbox = Mailbox()  # made here, as it belongs to the loop that serves
        items = AsyncItems(job.open_streams, job.abort, self._executor, self._mailbox)
        return _Visit(job, items, asyncio.create_task(_close_when_client_leaves(http, items)))

    def _leave(self, visit: _Visit) -> None:
        if visit.watcher is not None:
            visit.watcher.cancel()
        visit.items.close()
        self._num_requests -= len(visit.job.open_streams)
        self._pace.note_departure(time.monotonic(), len(visit.job.open_streams))
        self.metrics.in_flight.set(self._num_requests)
        items = visit.items
        self.metrics.record(visit.job.endpoint, visit.outcome, items.usage, ttft=items.ttft, seconds=items.elapsed)


async def _whole(visit: _Visit) -> Payload:
    async for items in visit.items.batches():
        for item in items:
            visit.job.answer.add(item)
    if visit.items.is_cancelled:
        return {}
    body = visit.job.answer.whole(visit.items.usage)
    visit.outcome = "ok"
    return body


async def _events(visit: _Visit) -> AsyncIterator[bytes]:
    answer = visit.job.answer

    def written(*payloads: Payload) -> bytes:
        return b"".join(event(one, one["type"] if answer.names_events else None) for one in payloads)

    try:
        if opening := written(*answer.opening()):
            yield opening
        async for items in visit.items.batches():
            if chunks := written(*(chunk for item in items for chunk in answer.chunks(item))):
                yield chunks
        if closing := written(*answer.closing(visit.items.usage)):
            yield closing
    except Exception as error:  # noqa: BLE001  # the head is sent: the error can only be an event
        visit.outcome = _outcome(error)
        yield written(answer.failure(describe(error)))
        return
    visit.outcome = "disconnected" if visit.items.is_cancelled else "ok"
    if not answer.names_events:
        yield DONE


async def _close_when_client_leaves(http: Request, items: AsyncItems) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    items.close()


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, RequestError):
        return "refused"
    if isinstance(error, CapacityError):
        return "busy"
    return "disconnected" if isinstance(error, asyncio.CancelledError) else "error"
