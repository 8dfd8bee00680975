"""The loop, driven by scripted answers: what the model sees next, when it stops, and that an answer comes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tusi.agent.loop import iter_agent, run_agent
from tusi.agent.tools.calculator import Calculator
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.agent.types import AgentEvent, AgentLimits, CallResult, CallStart, Delta, RunEnd, TurnEnd, TurnStart
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.chat.messages import ImagePart, Message, TextPart, ToolCall
from tusi.chat.template import ChatTemplate
from tusi.core.errors import ContextLengthExceeded, EngineError, RequestError
from tusi.engine.sampling_params import SamplingParams

PICTURE = ImagePart(np.zeros((300, 300, 3), np.uint8))
ASKED = (Message(role="user", content=(PICTURE, TextPart("What is it?"))),)
TOOLS = (ImageZoomInTool(), Calculator())


def zoom(*box: int) -> ToolCall:
    return ToolCall("ignored", "image_zoom_in_tool", json.dumps({"bbox_2d": box or (0, 0, 500, 500)}))


def add(text: str = "1+1") -> ToolCall:
    return ToolCall("ignored", "calculator", json.dumps({"expression": text}))


def calls(*tool_calls: ToolCall) -> FakeReply:
    return FakeReply(reasoning="Let me look.", tool_calls=tool_calls)


ANSWER = FakeReply(reasoning="I see.", content="A cat.")


def test_without_tools_it_is_one_question() -> None:
    backend = FakeBackend([ANSWER])
    trace = run_agent(backend, ASKED, template_kwargs={"enable_thinking": True}, mm_processor_kwargs={"fps": 1})
    assert (trace.answer, trace.finish_reason, trace.budget_spent, len(trace.turns)) == ("A cat.", "stop", False, 1)
    assert backend.requests[0].tools == ()
    assert backend.requests[0].template_kwargs == {"enable_thinking": True}
    assert backend.requests[0].mm_processor_kwargs == {"fps": 1}


def test_the_model_sees_its_thought_its_calls_and_their_results() -> None:
    backend = FakeBackend([calls(zoom(), add()), calls(zoom(0, 0, 100, 100)), ANSWER])
    trace = run_agent(backend, ASKED, TOOLS)
    assert trace.answer == "A cat."
    first, second, third = backend.requests
    assert first.messages == ASKED == trace.prompt
    assert [tool["function"]["name"] for tool in first.tools] == ["image_zoom_in_tool", "calculator"]
    _, said, crop, total = second.messages
    assert (said.role, said.reasoning, said.text) == ("assistant", "Let me look.", "")
    assert [message.tool_call_id for message in (crop, total)] == [call.id for call in said.tool_calls]
    assert isinstance(crop.content[0], ImagePart)
    assert total.text == "2"
    assert third.messages[:4] == second.messages
    assert trace.messages[:-1] == third.messages
    assert [call.name for call in trace.tool_calls] == ["image_zoom_in_tool", "calculator", "image_zoom_in_tool"]
    assert len({request.request_id for request in backend.requests}) == 3
    assert trace.usage.completion_tokens == sum(turn.usage.completion_tokens for turn in trace.turns) > 0


def test_pictures_are_numbered_on() -> None:
    backend = FakeBackend([calls(zoom()), calls(zoom()), ANSWER])
    run_agent(backend, ASKED, TOOLS)
    last = backend.requests[-1]
    rendered = ChatTemplate.built_in().render(last.messages, last.tools).text
    assert [f"Picture {n}:" in rendered for n in (1, 2, 3, 4)] == [True, True, True, False]


def test_a_failed_call_goes_back_to_the_model() -> None:
    backend = FakeBackend([calls(zoom(500, 500, 500, 500)), ANSWER])
    assert run_agent(backend, ASKED, TOOLS).answer == "A cat."
    assert backend.requests[1].messages[-1].text.startswith("error: bbox_2d [500, 500, 500, 500] holds no area")


@pytest.mark.parametrize("cut", [1, 7])
def test_events_tell_everything_in_order(cut: int) -> None:
    backend = FakeBackend([calls(add("2*3")), ANSWER], cut=cut)
    events = list(iter_agent(backend, ASKED, TOOLS))
    kinds = [type(event) for event in events if not isinstance(event, Delta)]
    assert kinds == [TurnStart, TurnEnd, CallStart, CallResult, TurnStart, TurnEnd, RunEnd]
    deltas = [event for event in events if isinstance(event, Delta)]
    assert "".join(event.delta.content for event in deltas if event.turn == 1) == "A cat."
    assert "".join(event.delta.reasoning for event in deltas if event.turn == 0) == "Let me look."
    result = next(event for event in events if isinstance(event, CallResult))
    assert result.content == (TextPart("6"),)


def test_a_model_that_makes_up_results_is_stopped_after_its_calls() -> None:
    spelled = calls(add(), add("2+2")).raw
    backend = FakeBackend([spelled + "<tool_output>\n99\n</tool_output>\nIt is 99.", ANSWER])
    trace = run_agent(backend, ASKED, TOOLS)
    first = trace.turns[0].choice
    assert [call.arguments for call in first.tool_calls] == [add().arguments, add("2+2").arguments]
    assert first.finish_reason == "tool_calls"
    assert "99" not in first.text + first.content
    assert trace.turns[0].usage.completion_tokens < len(spelled) + 10
    assert trace.answer == "A cat."


def endless(number: int) -> list[Any]:
    return [lambda request: calls(add()) if request.tools else ANSWER] * number


@pytest.mark.parametrize(
    ("limits", "turns"),
    [
        (AgentLimits(max_turns=3), 3),
        (AgentLimits(max_turns=1), 1),
        (AgentLimits(max_tool_calls=4), 5),
        (AgentLimits(max_tool_calls=0), 1),
        (AgentLimits(max_tokens=500, answer_tokens=100), 4),
    ],
)
def test_an_answer_comes_when_a_limit_is_reached(limits: AgentLimits, turns: int) -> None:
    backend = FakeBackend(endless(20))
    trace = run_agent(backend, ASKED, TOOLS, limits=limits)
    assert (trace.answer, trace.budget_spent, len(trace.turns)) == ("A cat.", True, turns)
    assert [bool(request.tools) for request in backend.requests] == [True] * (turns - 1) + [False]
    if limits.max_tokens is not None:
        assert trace.usage.completion_tokens <= limits.max_tokens
        assert backend.requests[0].sampling_params.max_tokens == 400


def test_calls_beyond_the_limit_are_answered_with_a_note() -> None:
    backend = FakeBackend([calls(add(), add("2+2"), add("3+3")), ANSWER])
    trace = run_agent(backend, ASKED, TOOLS, limits=AgentLimits(max_tool_calls=1))
    texts = [message.text for message in trace.tool_results]
    assert texts[0] == "2"
    assert texts[1:] == ["error: all 1 tool calls are spent; answer with what you know"] * 2


def test_results_that_do_not_fit_are_dropped_and_an_answer_comes() -> None:
    full = ContextLengthExceeded("the prompt has 9000 tokens")
    backend = FakeBackend([calls(zoom(), zoom()), full, ANSWER])
    trace = run_agent(backend, ASKED, TOOLS)
    assert (trace.answer, trace.budget_spent) == ("A cat.", True)
    assert ["does not fit" in message.text for message in trace.tool_results] == [True, True]
    assert backend.requests[-1].tools == ()


def test_a_prompt_that_does_not_fit_is_an_error() -> None:
    given = (*ASKED, Message(role="tool", content=(TextPart("from the caller"),), tool_call_id="x"))
    with pytest.raises(ContextLengthExceeded):
        run_agent(FakeBackend([ContextLengthExceeded("too long")]), given, TOOLS)


def test_an_error_of_the_backend_is_passed_on() -> None:
    with pytest.raises(EngineError, match="gone"):
        run_agent(FakeBackend([calls(add()), EngineError("gone")]), ASKED, TOOLS)


def test_closing_the_events_closes_the_stream() -> None:
    streams: list[Any] = []

    class Kept(FakeBackend):
        def stream(self, request: Any) -> Any:
            streams.append(super().stream(request))
            return streams[-1]

    events = iter_agent(Kept([ANSWER]), ASKED, TOOLS)
    assert isinstance(next(events), TurnStart)
    assert isinstance(next(events), Delta)
    events.close()
    with pytest.raises(StopIteration):
        next(streams[0])


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (lambda: run_agent(FakeBackend(), ASKED, TOOLS, SamplingParams(n=2)), "n is 2; .* run it 2 times"),
        (lambda: AgentLimits(max_turns=0), "max_turns is 0; it must be 1 or more"),
        (lambda: AgentLimits(max_tool_calls=-1), "max_tool_calls is -1"),
        (lambda: AgentLimits(max_tokens=300), "max_tokens is 300; it must be 512"),
        (lambda: AgentLimits(answer_tokens=0), "answer_tokens is 0"),
        (lambda: AgentLimits(tool_timeout=float("nan")), "over 0 seconds"),
    ],
)
def test_bad_settings_are_refused(build: Any, advice: str) -> None:
    with pytest.raises(RequestError, match=advice):
        build()


def test_the_last_event_is_the_end() -> None:
    events: list[AgentEvent] = list(iter_agent(FakeBackend([ANSWER]), ASKED, TOOLS))
    assert isinstance(events[-1], RunEnd)
