"""Runs one request from its arrival to its end: room in the house, the backend, a client who leaves, the metrics.

Both completions endpoints hand it what to ask and how an answer is written; it never looks into either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from tusi.backends.collect import ChoiceBuilder
from tusi.backends.protocol import Backend, ChatChoice, ChatDelta, DeltaStream, Usage
from tusi.core.errors import CapacityError, RequestError
from tusi.server.bridge import AsyncDeltas
from tusi.server.config import ServerConfig
from tusi.server.errors import ModelNotFound, describe
from tusi.server.facts import ModelFacts
from tusi.server.metrics import Metrics, Outcome
from tusi.server.sse import DONE, EventStream, event

CLIENT_CLOSED_REQUEST = 499


class AnswerFormat(Protocol):
    """How an endpoint writes an answer, whole and in pieces."""

    def whole(self, choices: list[ChatChoice], usage: Usage) -> dict[str, Any]:
        """The answer in one piece."""
        ...

    def opening(self) -> Iterator[dict[str, Any]]:
        """Chunks that come before any token."""
        ...

    def chunk(self, delta: ChatDelta) -> dict[str, Any] | None:
        """What a delta adds; None if there is nothing to say."""
        ...

    def usage_chunk(self, usage: Usage) -> dict[str, Any] | None:
        """The last chunk; None if it was not asked for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that was read and understood."""

    endpoint: str
    request_id: str
    n: int
    stream: bool
    open_stream: Callable[[], DeltaStream]
    answer: AnswerFormat


@dataclass(slots=True)
class _Visit:
    """A request in the house."""

    job: Job
    deltas: AsyncDeltas
    watcher: asyncio.Task[None]
    outcome: Outcome = "disconnected"


class Generator:
    """All requests of one server."""

    def __init__(self, backend: Backend, facts: ModelFacts, config: ServerConfig) -> None:
        self.backend = backend
        self.facts = facts
        self.config = config
        self.metrics = Metrics(facts.stats)
        self.model_names = config.served_model_names or (backend.model,)
        self._executor = ThreadPoolExecutor(max_workers=config.max_requests, thread_name_prefix="tusi-server")
        self._num_requests = 0

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
            await visit.deltas.start()
            if job.stream:
                return EventStream(_events(visit), lambda: self._leave(visit))
            response = await _whole(visit)
        except BaseException as error:
            visit.outcome = _outcome(error)
            self._leave(visit)
            raise
        self._leave(visit)
        return response

    def close(self) -> None:
        """Give back the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _enter(self, http: Request, job: Job) -> _Visit:
        if self._num_requests >= self.config.max_requests:
            self.metrics.record(job.endpoint, "busy", Usage(), ttft=None, seconds=0.0)
            raise CapacityError(
                f"{self._num_requests} requests are in the house, as many as it takes. Try again in a moment.",
                retry_after=1.0,
            )
        self._num_requests += 1
        self.metrics.in_flight.set(self._num_requests)
        deltas = AsyncDeltas(job.open_stream, lambda: self.backend.abort(job.request_id), self._executor)
        return _Visit(job, deltas, asyncio.create_task(_close_when_client_leaves(http, deltas)))

    def _leave(self, visit: _Visit) -> None:
        visit.watcher.cancel()
        visit.deltas.close()
        self._num_requests -= 1
        self.metrics.in_flight.set(self._num_requests)
        deltas = visit.deltas
        self.metrics.record(visit.job.endpoint, visit.outcome, deltas.usage, ttft=deltas.ttft, seconds=deltas.elapsed)


async def _whole(visit: _Visit) -> Response:
    builders = [ChoiceBuilder(index) for index in range(visit.job.n)]
    async for delta in visit.deltas:
        builders[delta.index].add(delta)
    if visit.deltas.is_cancelled:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # nobody reads it
    visit.outcome = "ok"
    return JSONResponse(visit.job.answer.whole([builder.build() for builder in builders], visit.deltas.usage))


async def _events(visit: _Visit) -> AsyncIterator[bytes]:
    answer = visit.job.answer
    try:
        for payload in answer.opening():
            yield event(payload)
        async for delta in visit.deltas:
            chunk = answer.chunk(delta)
            if chunk is not None:
                yield event(chunk)
        last = answer.usage_chunk(visit.deltas.usage)
        if last is not None:
            yield event(last)
    except Exception as error:  # noqa: BLE001  # the head is sent: the error can only be an event
        visit.outcome = _outcome(error)
        yield event(describe(error).body)
        return
    visit.outcome = "disconnected" if visit.deltas.is_cancelled else "ok"
    yield DONE


async def _close_when_client_leaves(http: Request, deltas: AsyncDeltas) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    deltas.close()


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, RequestError):
        return "refused"
    if isinstance(error, CapacityError):
        return "busy"
    return "disconnected" if isinstance(error, asyncio.CancelledError) else "error"
