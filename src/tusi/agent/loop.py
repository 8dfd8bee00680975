"""The agent loop: ask, run the tools that were called, ask again, until there is an answer.

In: a backend, a conversation, tools. Out: events while it runs, and a `Trace`. It talks to nothing but the Backend
protocol and the tools. The chat template numbers the pictures that tools return after those before them.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tusi.agent.tool import ConversationMedia, Outcome, Tool, ToolRunner, error_content
from tusi.agent.types import (
    AgentEvent,
    AgentLimits,
    CallResult,
    CallStart,
    Delta,
    RunEnd,
    Trace,
    Turn,
    TurnEnd,
    TurnStart,
    assistant_message,
)
from tusi.backends.collect import ChoiceBuilder
from tusi.backends.protocol import Backend, ChatDelta, ChatRequest, ToolChoice, Usage
from tusi.chat.messages import Message
from tusi.core.errors import ContextLengthExceeded, EngineError, RequestError
from tusi.engine.sampling_params import SamplingParams

_DEFAULT_LIMITS = AgentLimits()


def run_agent(
    backend: Backend,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    sampling_params: SamplingParams | None = None,
    *,
    limits: AgentLimits = _DEFAULT_LIMITS,
    template_kwargs: Mapping[str, Any] | None = None,
    mm_processor_kwargs: Mapping[str, Any] | None = None,
) -> Trace:
    """As `iter_agent`, in one piece."""
    events = iter_agent(
        backend,
        messages,
        tools,
        sampling_params,
        limits=limits,
        template_kwargs=template_kwargs,
        mm_processor_kwargs=mm_processor_kwargs,
    )
    for event in events:
        if isinstance(event, RunEnd):
            return event.trace
    raise EngineError("the agent loop ended without a trace; report this as a bug.")


def iter_agent(
    backend: Backend,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    sampling_params: SamplingParams | None = None,
    *,
    limits: AgentLimits = _DEFAULT_LIMITS,
    template_kwargs: Mapping[str, Any] | None = None,
    mm_processor_kwargs: Mapping[str, Any] | None = None,
    client_tools: Sequence[Mapping[str, Any]] = (),
    tool_choice: ToolChoice = "auto",
    parallel_tool_calls: bool = True,
) -> Generator[AgentEvent, None, None]:
    """Drive a conversation to its answer; the last event is a RunEnd. Closing the generator aborts what runs.

    sampling_params: of each turn; None: what the backend recommends. When a limit is reached, one last turn without
    tools is asked for, so that an answer comes. client_tools: schemas of tools that the caller runs itself: a turn that
    calls one is the last. tool_choice: of the first turn. Raises what the backend raises, and RequestError for n > 1.
    """
    params = backend.default_sampling_params if sampling_params is None else sampling_params
    if params.n != 1:
        raise RequestError(f"n is {params.n}; the agent follows one completion; run it {params.n} times.", param="n")
    run = _Run(
        backend=backend,
        runner=ToolRunner(tools, timeout=limits.tool_timeout),
        params=params,
        limits=limits,
        template_kwargs=dict(template_kwargs or {}),
        mm_processor_kwargs=dict(mm_processor_kwargs or {}),
        conversation=list(messages),
        media=ConversationMedia.of(messages),
        client_tools=tuple(client_tools),
        tool_choice=tool_choice,
        parallel_tool_calls=parallel_tool_calls,
    )
    while True:
        turn = yield from run.turn()
        if not turn.choice.tool_calls or turn.choice.finish_reason == "abort":
            break
        yield from run.call_tools(turn)
        if run.is_left_to_client(turn):
            break
    yield RunEnd(run.trace(num_prompt_messages=len(messages)))


@dataclass(kw_only=True)
class _Run:
    """One run in progress."""

    backend: Backend
    runner: ToolRunner
    params: SamplingParams
    limits: AgentLimits
    template_kwargs: dict[str, Any]
    mm_processor_kwargs: dict[str, Any]
    conversation: list[Message]
    media: ConversationMedia
    client_tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    turns: list[Turn] = field(default_factory=list)
    num_calls: int = 0
    is_full: bool = False
    _id: str = field(default_factory=lambda: f"agent-{uuid.uuid4().hex}")

    def turn(self) -> Generator[AgentEvent, None, Turn]:
        """Ask once."""
        number = len(self.turns)
        try:
            turn = yield from _ask(self.backend, self._request(), number)
        except ContextLengthExceeded:
            if not self._drop_last_results():
                raise
            self.is_full = True
            turn = yield from _ask(self.backend, self._request(), number)
        self.turns.append(turn)
        self.conversation.append(assistant_message(turn.choice))
        yield TurnEnd(number, turn.choice, turn.usage)
        return turn

    def call_tools(self, turn: Turn) -> Generator[AgentEvent, None, None]:
        """Run a turn's calls, in order; the caller's own are left out."""
        number = len(self.turns) - 1
        for call in turn.choice.tool_calls:
            if call.name in self._client_names:
                continue
            origin = self.runner.origin(call, self.media)
            yield CallStart(number, call, origin)
            if self.num_calls < self.limits.max_tool_calls:
                outcome = self.runner.outcome(call, self.media)
            else:
                spent = f"all {self.limits.max_tool_calls} tool calls are spent"
                outcome = Outcome(error_content(f"{spent}; answer with what you know"), is_error=True)
            self.num_calls += 1
            self.conversation.append(Message(role="tool", content=outcome.content, tool_call_id=call.id))
            yield CallResult(number, call, outcome.content, origin, outcome.is_error)

    def is_left_to_client(self, turn: Turn) -> bool:
        """Whether a turn called a tool of the caller's."""
        return any(call.name in self._client_names for call in turn.choice.tool_calls)

    @property
    def _client_names(self) -> set[str]:
        return {tool["function"]["name"] for tool in self.client_tools}

    @property
    def _schemas(self) -> tuple[Mapping[str, Any], ...]:
        return (*self.runner.schemas, *self.client_tools)

    def trace(self, *, num_prompt_messages: int) -> Trace:
        schemas = self._schemas
        return Trace(
            model=self.backend.model,
            messages=tuple(self.conversation),
            num_prompt_messages=num_prompt_messages,
            turns=tuple(self.turns),
            tools=schemas,
            limits=self.limits,
            budget_spent=bool(schemas) and self._is_last(before=len(self.turns) - 1),
        )

    def _request(self) -> ChatRequest:
        is_last = self._is_last(before=len(self.turns))
        return ChatRequest(
            messages=tuple(self.conversation),
            tools=() if is_last else self._schemas,
            sampling_params=self._turn_params(is_last),
            template_kwargs=self.template_kwargs,
            mm_processor_kwargs=self.mm_processor_kwargs,
            request_id=f"{self._id}-{len(self.turns)}" + ("-full" if self.is_full else ""),
            tool_choice="auto" if is_last or self.turns else self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
        )

    def _is_last(self, *, before: int) -> bool:
        """Whether the turn after so many others must be the answer."""
        limits = self.limits
        left = self._tokens_left(before)
        is_short = left is not None and left < 2 * limits.answer_tokens
        calls = sum(len(turn.choice.tool_calls) for turn in self.turns[:before])
        return self.is_full or is_short or before >= limits.max_turns - 1 or calls >= limits.max_tool_calls

    def _turn_params(self, is_last: bool) -> SamplingParams:
        left = self._tokens_left(len(self.turns))
        if left is None:
            return self.params
        # Never below 1: a turn may overshoot by the tokens that close a thought.
        room = max(1, left if is_last else left - self.limits.answer_tokens)
        cap = min(room, self.params.max_tokens or room)
        return replace(self.params, max_tokens=cap, min_tokens=min(self.params.min_tokens, cap))

    def _tokens_left(self, before: int) -> int | None:
        if self.limits.max_tokens is None:
            return None
        return self.limits.max_tokens - sum(turn.usage.completion_tokens for turn in self.turns[:before])

    def _drop_last_results(self) -> bool:
        """Replace the tool results that did not fit any more; False if the conversation ends with none."""
        index = len(self.conversation)
        while index and self.conversation[index - 1].role == "tool":
            index -= 1
            note = error_content("the result does not fit into the context; answer with what you know")
            self.conversation[index] = replace(self.conversation[index], content=note)
        return bool(self.turns) and index < len(self.conversation)


def _ask(backend: Backend, request: ChatRequest, number: int) -> Generator[AgentEvent, None, Turn]:
    """One answer. It ends with its tool calls: a model that goes on writing makes up what the tools will say."""
    builder, usage = ChoiceBuilder(0), Usage()
    has_called = is_cut = False
    stream = backend.stream(request)
    try:
        yield TurnStart(number)
        for delta in stream:
            usage = delta.usage or usage
            if has_called and not is_cut and delta.content.strip():
                is_cut = True
                backend.abort(request.request_id or "")
            if not is_cut:  # after a cut, only the usage is of interest
                has_called = has_called or bool(delta.tool_calls)
                builder.add(delta)
                yield Delta(number, delta)
    finally:
        stream.close()
    if is_cut:
        end = ChatDelta(finish_reason="tool_calls")
        builder.add(end)
        yield Delta(number, end)
    return Turn(builder.build(), usage)
