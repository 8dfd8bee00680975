"""The agent loop for one request of the server: a stream of events that can be ended from any thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from tusi.agent.loop import iter_agent
from tusi.agent.media import downloaded, encoded
from tusi.agent.tool import Tool
from tusi.agent.types import AgentEvent, AgentLimits, CallResult
from tusi.backends.protocol import Backend, ChatRequest, ChatResult, DeltaStream
from tusi.chat.messages import Message
from tusi.core.errors import RequestError
from tusi.engine.sampling_params import SamplingParams
from tusi.processing.limits import MediaLimits
from tusi.server.bridge import ItemStream


class AgentRun:
    """One conversation with tools: a stream of events to be opened once, and the way to end it from any thread."""

    def __init__(
        self,
        backend: Backend,
        request: ChatRequest,
        tools: Sequence[Tool],
        client_tools: Sequence[Mapping[str, Any]],
        limits: AgentLimits,
        media_limits: MediaLimits,
    ) -> None:
        self._backend = _Stoppable(backend, request.priority)
        self._request, self._tools, self._client_tools = request, tools, client_tools
        self._limits, self._media_limits = limits, media_limits

    def open(self) -> ItemStream:
        """The events. Returns once the backend has taken the first turn; raises what it is refused with."""
        request = self._request
        events = iter_agent(
            self._backend,
            [self._with_bytes(message) for message in request.messages],
            self._tools,
            request.sampling_params,
            limits=self._limits,
            template_kwargs=request.template_kwargs,
            mm_processor_kwargs=request.mm_processor_kwargs,
            client_tools=self._client_tools,
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
        )
        return _encoded(next(events), events)

    def abort(self) -> None:
        """End it: the turn that runs is aborted, and none follows."""
        self._backend.stop()

    def _with_bytes(self, message: Message) -> Message:
        """Every turn and every tool looks at the pictures: they are fetched once."""
        return replace(message, content=downloaded(message.content, self._media_limits))


class _Stoppable:
    """A backend for one run, which can be told to end whatever it runs and to take nothing more."""

    def __init__(self, backend: Backend, priority: int) -> None:
        self._backend, self._priority = backend, priority
        self._lock = threading.Lock()
        self._running: str | None = None
        self._is_stopped = False

    @property
    def model(self) -> str:
        return self._backend.model

    @property
    def default_sampling_params(self) -> SamplingParams:
        return self._backend.default_sampling_params

    def stream(self, request: ChatRequest) -> DeltaStream:
        self._note(request)
        stream = self._backend.stream(replace(request, priority=self._priority))
        if self._is_stopped:  # told so while the prompt was being prepared
            self.abort(request.request_id or "")
        return stream

    def generate(self, request: ChatRequest) -> ChatResult:
        self._note(request)
        return self._backend.generate(replace(request, priority=self._priority))

    def abort(self, request_id: str) -> None:
        self._backend.abort(request_id)

    def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """End the run."""
        with self._lock:
            self._is_stopped = True
            running = self._running
        if running is not None:
            self._backend.abort(running)

    def _note(self, request: ChatRequest) -> None:
        with self._lock:
            if self._is_stopped:
                raise RequestError("the request was ended by its client.", code="aborted")
            self._running = request.request_id


def _encoded(first: AgentEvent, events: Generator[AgentEvent, None, None]) -> Generator[AgentEvent, None, None]:
    """The events, with pictures that tools return as data URLs. Written here, as this runs in the reader's thread."""
    with closing(events):
        yield first
        for event in events:
            if isinstance(event, CallResult):
                event = replace(event, content=encoded(event.content))
            yield event
