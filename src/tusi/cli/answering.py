"""Asks for one answer through the agent loop, shown as it comes, and says how it ended. Without tools: one turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tusi.agent.loop import iter_agent
from tusi.agent.tool import Tool
from tusi.agent.trace import write_traces
from tusi.agent.types import AgentEvent, CallResult, CallStart, Delta, RunEnd, Trace
from tusi.backends.protocol import Backend, ChatChoice, ChatRequest, Usage
from tusi.cli.writer import AnswerWriter
from tusi.core.errors import ConfigError, EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished answer. choice: the last turn's; usage: of all turns; trace: what happened on the way.

    ttft: seconds to the first token; e2e_latency: to the last.
    """

    choice: ChatChoice
    usage: Usage
    trace: Trace
    ttft: float
    e2e_latency: float


def answer(
    backend: Backend, request: ChatRequest, tools: Sequence[Tool] = (), *, show: AnswerWriter | None = None
) -> Answer:
    """Ask, showing what comes. Ctrl-C aborts the request and is passed on. tools: what the model may call."""
    start = time.monotonic()
    first: float | None = None
    trace: Trace | None = None
    events = iter_agent(
        backend,
        request.messages,
        tools,
        request.sampling_params,
        template_kwargs=request.template_kwargs,
        mm_processor_kwargs=request.mm_processor_kwargs,
    )
    try:
        for event in events:
            if first is None and isinstance(event, Delta) and event.delta.token_ids:
                first = time.monotonic()
            if show:
                _show(event, show)
            if isinstance(event, RunEnd):
                trace = event.trace
    finally:
        events.close()
        if show:
            show.finish()
    if trace is None:
        raise EngineError("the agent loop ended without a trace; report this as a bug.")
    end = time.monotonic()
    choice = trace.turns[-1].choice
    return Answer(choice=choice, usage=trace.usage, trace=trace, ttft=(first or end) - start, e2e_latency=end - start)


def _show(event: AgentEvent, writer: AnswerWriter) -> None:
    if isinstance(event, Delta):
        writer.write(event.delta)
    elif isinstance(event, CallStart):
        writer.call(event.call)
    elif isinstance(event, CallResult):
        writer.result(event.content)


def remarks(result: Answer) -> list[str]:
    """What the user must know about how this answer ended, with advice; nothing if it ended by itself."""
    choice, usage = result.choice, result.trace.turns[-1].usage
    written = f"{usage.completion_tokens} tokens"
    if choice.thinking_truncated and not choice.content:
        return [
            f"There is no answer: the thinking was cut after {written}. Allow more with --max-tokens (and "
            "--max-model-len), make it stop sooner with --thinking-budget, or ask with --no-thinking."
        ]
    if choice.stop_reason == "repetition":
        return [f"The answer repeated itself and was ended after {written}. Try another --temperature or --seed."]
    lines = []
    if result.trace.budget_spent:
        calls = len(result.trace.tool_calls)
        lines.append(
            f"After {calls} tool calls the tools were taken away, so that an answer comes; it may rest on too little."
        )
    if choice.thinking_truncated:
        lines.append(
            f"The thinking was closed after {usage.reasoning_tokens} tokens, before its own end; the answer rests on "
            "that. Raise --thinking-budget or --max-tokens to let it finish."
        )
    if choice.finish_reason == "length":
        lines.append(f"The answer was cut after {written}. Allow more with --max-tokens, or --max-model-len.")
    return lines


def summary(result: Answer) -> str:
    """One line of counts and times."""
    usage, calls = result.usage, len(result.trace.tool_calls)
    media = usage.image_tokens + usage.video_tokens
    decode_seconds = result.e2e_latency - result.ttft
    rate = (usage.completion_tokens - 1) / decode_seconds if usage.completion_tokens > 1 and decode_seconds > 0 else 0.0
    called = f"; {calls} tool call{'s' if calls > 1 else ''} in {len(result.trace.turns)} turns" if calls else ""
    return (
        f"{usage.prompt_tokens} tokens in ({media} of pictures and videos), {usage.completion_tokens} out "
        f"({usage.reasoning_tokens} thoughts){called}; first after {result.ttft:.1f} s, then {rate:.1f} tokens/s"
    )


def check_trace_file(path: Path) -> None:
    """Raise, before minutes are spent on an answer, if the trace could not be written."""
    if path.is_dir():
        raise ConfigError(f"--trace {path} is a folder. Give the name of a file, such as {path / 'trace.jsonl'}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--trace {path}: there is no folder {str(path.parent)!r}. Create it, or choose another.")


def append_trace(trace: Trace, path: Path) -> None:
    """Add a line to a file of traces. Raises ConfigError if it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            write_traces([trace], file)
    except OSError as error:
        raise ConfigError(f"--trace {path} cannot be written ({error.strerror}). Choose another place.") from error
