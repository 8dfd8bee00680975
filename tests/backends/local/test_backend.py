"""The local backend over a scripted model: what the model wants to say is known, so what must come out is too."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable

import pytest

from tests.backends.scripted_model import ScriptedBackend
from tusi.backends.collect import collect
from tusi.backends.local.repetition import ANSWER_MIN_TOKENS, REASONING_MIN_TOKENS
from tusi.backends.outbox import Item
from tusi.backends.protocol import ChatDelta
from tusi.core.errors import CapacityError, ContextLengthExceeded, EngineError, RequestError
from tusi.engine.sampling_params import StructuredOutputsParams

Make = Callable[..., ScriptedBackend]
TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object", "properties": {}}}}
JSON_SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_the_budget_of_a_picture_is_known(scripted: Make) -> None:
    assert scripted("A.").backend.image_max_pixels == 224 * 224


# Reasoning and content


def test_a_plain_answer_is_split_and_counted(scripted: Make) -> None:
    backend = scripted("I see.\n</think>\n\nA cat.")
    choice, usage = backend.ask()
    assert (choice.reasoning, choice.content) == ("I see.", "A cat.")
    assert choice.text == "I see.\n</think>\n\nA cat."
    assert (choice.finish_reason, choice.stop_reason, choice.thinking_truncated) == ("stop", None, False)
    assert usage.reasoning_tokens == len(backend.tokenizer.encode("I see.\n"))
    assert usage.completion_tokens == len(choice.token_ids)
    assert usage.prompt_tokens == backend.model.prompt_length


def test_without_thinking_everything_is_the_answer(scripted: Make) -> None:
    choice, usage = scripted("A cat.").ask(template_kwargs={"enable_thinking": False})
    assert (choice.reasoning, choice.content) == (None, "A cat.")
    assert usage.reasoning_tokens == 0


def test_tool_calls_end_the_turn_at_eos(scripted: Make) -> None:
    text = 'Zoom.\n</think>\n\n\n<tool_call>\n{"name": "zoom", "arguments": {"a": [1, 2]}}\n</tool_call>\n'
    choice, _ = scripted(text).ask(tools=(TOOL,))
    assert choice.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in choice.tool_calls] == [("zoom", '{"a": [1, 2]}')]
    assert choice.content == ""


def test_a_tool_call_cut_short_is_text_and_length(scripted: Make) -> None:
    text = 'Zoom.\n</think>\n\n<tool_call>\n{"name": "zoom", "arguments": {"a": [1, 2]}}\n</tool_call>\n'
    choice, _ = scripted(text).ask(tools=(TOOL,), max_tokens=40, thinking_budget=100)
    assert choice.finish_reason == "length"
    assert choice.tool_calls == ()
    assert choice.content.startswith("<tool_call>"), "no text is lost"


def test_tool_calls_stay_text_where_no_tools_were_offered(scripted: Make) -> None:
    text = '.\n</think>\n\n<tool_call>\n{"name": "zoom", "arguments": {}}\n</tool_call>'
    choice, _ = scripted(text).ask()
    assert choice.finish_reason == "stop"
    assert "<tool_call>" in choice.content


# Stop strings


def test_a_stop_string_ends_the_answer_but_not_the_reasoning(scripted: Make) -> None:
    choice, _ = scripted("Not END yet.\n</think>\n\nOne. END Two.").ask(stop=("END",))
    assert choice.reasoning == "Not END yet."
    assert choice.content == "One. "
    assert (choice.finish_reason, choice.stop_reason) == ("stop", "END")


def test_the_stop_string_can_be_included(scripted: Make) -> None:
    choice, _ = scripted("t\n</think>\n\nOne. END Two.").ask(stop=("END",), include_stop_str_in_output=True)
    assert choice.content == "One. END"


def test_a_beginning_of_a_stop_string_is_given_out_at_the_end(scripted: Make) -> None:
    choice, _ = scripted("t\n</think>\n\nOne EN").ask(stop=("END",))
    assert choice.content == "One EN"
    assert choice.finish_reason == "stop"
    assert choice.stop_reason is None


def test_no_stop_before_min_tokens(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\nEND and then END again")
    first = len(backend.tokenizer.encode("t\n</think>\n\nEND"))
    choice, _ = backend.ask(stop=("END",), min_tokens=first)
    assert choice.content == "END and then "


def test_a_stop_token_is_not_text(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\nOne 9 two")
    [nine] = backend.tokenizer.encode("9")
    choice, _ = backend.ask(stop_token_ids=(nine,))
    assert (choice.content, choice.stop_reason, choice.finish_reason) == ("One ", nine, "stop")
    assert choice.token_ids[-1] == nine


def test_after_a_stop_string_the_blocks_are_free(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\nOne. END " + "more " * 50)
    backend.ask(stop=("END",))
    stats = backend.backend.stats()
    assert (stats.num_running, stats.num_used_blocks) == (0, 0)


# Thinking that ends


def test_a_budget_closes_the_reasoning_cleanly_and_an_answer_follows(scripted: Make) -> None:
    backend = scripted("0123456789" * 30)
    choice, usage = backend.ask(thinking_budget=12, max_tokens=40)
    assert choice.text.startswith("012345678901\n</think>\n\n")
    assert (choice.reasoning, usage.reasoning_tokens) == ("012345678901", 12)
    assert choice.content
    assert choice.thinking_truncated
    assert choice.finish_reason == "length"


def test_the_line_break_of_the_close_is_left_out_where_there_is_one(scripted: Make) -> None:
    choice, _ = scripted("line one\n" + "0123456789" * 30).ask(
        thinking_budget=len(scripted("x").tokenizer.encode("line one\n")), max_tokens=40
    )
    assert choice.text.startswith("line one\n</think>\n\n")
    assert choice.reasoning == "line one"


def test_a_budget_of_nothing_closes_at_once(scripted: Make) -> None:
    choice, usage = scripted("0123456789" * 30).ask(thinking_budget=0, max_tokens=20)
    assert choice.text.startswith("</think>\n\n"), "the prompt ended with a line break"
    assert choice.reasoning is None
    assert choice.content
    assert choice.thinking_truncated
    assert usage.reasoning_tokens == 0


@pytest.mark.parametrize("max_tokens", [8, 16, 40, 100])
def test_without_a_budget_room_for_an_answer_is_kept(scripted: Make, max_tokens: int) -> None:
    choice, usage = scripted("0123456789" * 30).ask(max_tokens=max_tokens)
    assert choice.content
    assert choice.thinking_truncated
    assert usage.completion_tokens == max_tokens


def test_a_model_that_wants_to_end_after_a_forced_close_must_answer_first(scripted: Make) -> None:
    backend = scripted([0] * 500)
    digits = backend.tokenizer.encode("0123456789")
    close = 10 + 4
    backend.model.script = lambda i: digits[i % 10] if i < close else backend.eos
    choice, _ = backend.ask(thinking_budget=10)
    assert choice.content == "7", "the second choice, since the end was held back for one token"
    assert choice.finish_reason == "stop"


def test_a_model_may_answer_nothing_if_nobody_cut_it(scripted: Make) -> None:
    choice, _ = scripted("thought\n</think>\n\n").ask()
    assert choice.content == ""
    assert choice.finish_reason == "stop"


def test_a_loop_in_the_reasoning_is_broken(scripted: Make) -> None:
    choice, usage = scripted("no no no " * 400).ask(max_tokens=1000)
    assert choice.thinking_truncated
    assert usage.reasoning_tokens < REASONING_MIN_TOKENS + 10
    assert choice.content


def test_a_loop_in_the_answer_ends_it(scripted: Make) -> None:
    choice, usage = scripted("t\n</think>\n\n" + "no no no " * 800).ask(max_tokens=3000)
    assert (choice.finish_reason, choice.stop_reason) == ("length", "repetition")
    assert usage.completion_tokens < ANSWER_MIN_TOKENS + 20
    assert not choice.thinking_truncated


def test_loops_may_be_wanted(scripted: Make) -> None:
    choice, _ = scripted("t\n</think>\n\n" + "no no no " * 800).ask(max_tokens=1200, repetition_break=False)
    assert len(choice.token_ids) == 1200


# Structured answers


def test_a_schema_binds_the_answer_and_not_the_reasoning(scripted: Make) -> None:
    choice, _ = scripted('Prose, not JSON.\n</think>\n\n{"n": 12}').ask(
        structured_outputs=StructuredOutputsParams(json=JSON_SCHEMA)
    )
    assert choice.reasoning == "Prose, not JSON."
    assert json.loads(choice.content) == {"n": 12}
    assert choice.finish_reason == "stop"


def test_the_answer_begins_after_an_empty_line_even_if_the_model_forgets_it(scripted: Make) -> None:
    choice, _ = scripted("Hm.\n</think>red").ask(structured_outputs=StructuredOutputsParams(choice=("red", "blue")))
    assert choice.text.startswith("Hm.\n</think>\n\n")
    assert choice.content in ("red", "blue")


def test_a_schema_survives_a_forced_close(scripted: Make) -> None:
    choice, _ = scripted("0123456789" * 3 + "}" * 300).ask(
        thinking_budget=10, structured_outputs=StructuredOutputsParams(json=JSON_SCHEMA), max_tokens=200
    )
    assert choice.thinking_truncated
    assert choice.text.startswith("0123456789\n</think>\n\n{")
    assert set(json.loads(choice.content)) == {"n"}


def test_content_is_never_empty_when_the_model_ends_inside_its_reasoning(scripted: Make) -> None:
    backend = scripted([0])
    thought = backend.tokenizer.encode("Hm")
    backend.model.script = lambda i: thought[i] if i < len(thought) else backend.eos
    choice, _ = backend.ask(thinking_budget=20, structured_outputs=StructuredOutputsParams(choice=("red", "blue")))
    assert choice.content in ("red", "blue")


def test_a_schema_holds_without_thinking(scripted: Make) -> None:
    choice, _ = scripted("I would rather chat.").ask(
        template_kwargs={"enable_thinking": False}, structured_outputs=StructuredOutputsParams(regex=r"\d{4}")
    )
    assert choice.content == "7777"
    assert choice.finish_reason == "stop"


def test_a_wrong_schema_raises_at_the_call(scripted: Make) -> None:
    backend = scripted("x")
    with pytest.raises(RequestError, match="Invalid type: objekt"):
        backend.backend.stream(backend.request(structured_outputs=StructuredOutputsParams(json='{"type": "objekt"}')))
    assert backend.backend.stats().num_running == 0


def test_completions_of_one_prompt_are_bound_independently(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\nx")
    request = backend.request(n=3, structured_outputs=StructuredOutputsParams(choice=("red", "blue")))
    result = backend.backend.generate(request)
    assert [choice.index for choice in result.choices] == [0, 1, 2]
    assert {choice.content for choice in result.choices} <= {"red", "blue"}
    assert result.usage.prompt_tokens == backend.model.prompt_length
    assert result.usage.completion_tokens == sum(len(choice.token_ids) for choice in result.choices)


# Threads, ends, errors


def test_a_finished_request_is_one_line_in_the_log(scripted: Make, caplog: pytest.LogCaptureFixture) -> None:
    backend = scripted("A secret.\n</think>\n\nA cat.")
    with caplog.at_level("INFO", logger="tusi.backends"):
        _, usage = backend.ask()
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("tusi.backends")]
    assert f"{usage.prompt_tokens} tokens in (0 cached), {usage.completion_tokens} out" in line
    assert line.endswith("stop")
    assert "secret" not in caplog.text


def test_an_abandoned_stream_is_taken_out_of_the_engine(scripted: Make) -> None:
    backend = scripted("0123456789" * 200)
    for give_up in (lambda s: s.close(), lambda s: None):
        stream = backend.backend.stream(backend.request(max_tokens=4000))
        next(stream)
        assert backend.backend.stats().num_running == 1
        give_up(stream)
        del stream
        gc.collect()
        wait_until(lambda: backend.backend.stats().num_used_blocks == 0)
        assert backend.backend.stats().num_running == 0


def test_abort_by_name_ends_with_abort(scripted: Make) -> None:
    backend = scripted("0123456789" * 200)
    request = backend.request(max_tokens=4000, n=2)
    stream = backend.backend.stream(request)
    next(stream)
    backend.backend.abort(stream.request_id)
    last = list(stream)
    assert [delta.finish_reason for delta in last if delta.finish_reason] == ["abort", "abort"]
    assert last[-1].usage is not None
    backend.backend.abort(stream.request_id)
    backend.backend.abort("nobody")


def test_who_wants_all_is_woken_once_and_gets_the_same(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\n" + " ".join(str(i) for i in range(50)))
    backend.ask(max_tokens=300)  # from here on the prompt's blocks are cached
    one_by_one = list(backend.backend.stream(backend.request(max_tokens=300)))
    stream = backend.backend.stream(backend.request(max_tokens=300))
    first = next(stream)
    at_once = stream.rest()
    assert collect([first, *at_once]) == collect(one_by_one)
    assert not stream._group.wants(), "tokens that nobody waits for become text together"
    assert list(stream) == []
    backend.model.before_step = lambda: time.sleep(0.02)  # it must not be done before it is broken
    broken = backend.backend.stream(backend.request(max_tokens=300))
    backend.backend.close()
    with pytest.raises(EngineError, match="was closed"):
        broken.rest()


def test_tokens_that_nobody_waits_for_become_text_together(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\n" + " ".join(str(i) for i in range(50)))
    asked = backend.request(max_tokens=300)
    one_by_one = list(backend.backend.stream(asked))
    items: list[Item] = []
    is_over = threading.Event()

    def sink(item: Item) -> None:
        items.append(item)
        if item is None:
            is_over.set()

    with backend.backend.hold():  # no token comes before the stream is told what is wanted
        stream = backend.backend.stream(asked)
        stream.forward(sink, lambda: not items)
    assert is_over.wait(30)
    deltas = [item for item in items if isinstance(item, ChatDelta)]
    assert deltas[0] == one_by_one[0]
    assert len(deltas) < len(one_by_one) / 10
    assert collect(deltas)[0] == collect(one_by_one)[0]


def test_log_probabilities_stay_with_the_text_of_their_token(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\nA cat.")
    asked = backend.request(max_tokens=50, logprobs=1)
    backend.backend.generate(asked)  # from here on the prompt's blocks are cached
    one_by_one = list(backend.backend.stream(asked))
    assert one_by_one[0].logprobs
    assert backend.backend.stream(asked).rest() == one_by_one


def test_what_begins_while_the_engine_is_held_begins_in_one_step(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\nA cat.")
    running = backend.backend.stream(backend.request())
    with backend.backend.hold(), backend.backend.hold():
        list_of_streams = [backend.backend.stream(backend.request()) for _ in range(3)]
        steps = backend.backend.stats().num_steps
        time.sleep(0.05)
        assert backend.backend.stats().num_steps == steps, "nobody gets on"
        assert backend.backend.stats().num_waiting == 3
    answers = [collect(list(stream))[0][0].content for stream in (running, *list_of_streams)]
    assert answers == ["A cat."] * 4


def test_an_engine_that_is_held_can_be_closed(scripted: Make) -> None:
    backend = scripted("A cat.")
    with backend.backend.hold():
        stream = backend.backend.stream(backend.request())
        backend.backend.close()
        with pytest.raises(EngineError, match="was closed"):
            stream.rest()
    with pytest.raises(EngineError, match="was closed"), backend.backend.hold():
        pass


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(scripted: Make) -> None:
    backend = scripted("t\n</think>\n\n" + " ".join(str(i) for i in range(100)))
    slow = backend.backend.stream(backend.request(max_tokens=400))
    next(slow)
    fast, _ = backend.ask(max_tokens=400)
    wait_until(lambda: backend.backend.stats().num_running == 0)
    rest = "".join(delta.content for delta in slow)
    assert rest == fast.content == " ".join(str(i) for i in range(100))


def test_the_death_of_the_engine_reaches_everyone_and_later_calls_say_why(scripted: Make) -> None:
    backend = scripted("0123456789" * 200)
    streams = [backend.backend.stream(backend.request(max_tokens=4000)) for _ in range(2)]
    for stream in streams:
        next(stream)

    def fail() -> None:
        raise FloatingPointError("a kernel failed")

    backend.model.before_step = fail
    for stream in streams:
        with pytest.raises(EngineError, match="a kernel failed"):
            list(stream)
    with pytest.raises(EngineError, match="a kernel failed"):
        backend.ask()
    backend.backend.close()


def test_a_grammar_that_fails_costs_its_own_completions_only(scripted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Digits wherever a prompt ends: the second request's is of another length, and the script counts from the newest.
    backend = scripted(lambda index: 3 + index % 10)
    other = backend.backend.stream(backend.request(max_tokens=60))
    next(other)
    monkeypatch.setattr("tusi.backends.structured_outputs.MatcherGrammar.accept", lambda self, token_id: False)
    structured = StructuredOutputsParams(regex="[0-9]+")
    broken = backend.request(n=2, structured_outputs=structured, template_kwargs={"enable_thinking": False})
    with pytest.raises(EngineError, match="refused token"):
        backend.backend.generate(broken)
    assert list(other)[-1].finish_reason == "length"
    wait_until(lambda: backend.backend.stats().num_used_blocks == 0)
    assert backend.ask(max_tokens=3)[0].finish_reason == "length"


def test_a_failure_in_our_own_loop_reaches_everyone_too(scripted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = scripted("0123456789" * 200)
    stream = backend.backend.stream(backend.request(max_tokens=4000))
    next(stream)
    monkeypatch.setattr("tusi.backends.local.request_group.token_logprobs", lambda _: 1 / 0)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        list(stream)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        backend.ask()


def test_closing_ends_what_runs_and_refuses_what_comes(scripted: Make) -> None:
    backend = scripted("0123456789" * 200)
    stream = backend.backend.stream(backend.request(max_tokens=4000))
    next(stream)
    backend.backend.close()
    with pytest.raises(EngineError, match="closed"):
        list(stream)
    with pytest.raises(EngineError, match="make a new one"):
        backend.ask()
    backend.backend.close()


def test_a_dropped_backend_ends_its_thread(scripted: Make, tiny_folder) -> None:  # type: ignore[no-untyped-def]
    backend = ScriptedBackend(tiny_folder, "hello")
    backend.ask()
    names = [thread for thread in threading.enumerate() if thread.name == "tusi-engine"]
    del backend
    gc.collect()
    wait_until(lambda: len([t for t in threading.enumerate() if t.name == "tusi-engine"]) == len(names) - 1)


def test_refusals_come_at_the_call(scripted: Make) -> None:
    backend = scripted("0123456789" * 200, max_model_len=128, max_waiting=1, max_num_seqs=1)
    with pytest.raises(RequestError, match="ids run from 0"):
        backend.backend.stream(backend.request(stop_token_ids=(10**6,)))
    backend.model.before_step = lambda: time.sleep(0.05)  # so that it runs for as long as this test asks
    running = backend.backend.stream(backend.request())
    next(running)
    waiting = backend.backend.stream(backend.request())
    with pytest.raises(CapacityError, match="try again later"):
        backend.backend.stream(backend.request())
    with pytest.raises(CapacityError):
        backend.backend.stream(backend.request(n=2))
    backend.model.before_step = lambda: None
    running.close()
    assert list(waiting)[-1].finish_reason == "length"
    assert backend.backend.stats().num_used_blocks == 0


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(scripted: Make) -> None:
    backend = scripted("hello", max_model_len=8)
    with pytest.raises(ContextLengthExceeded, match=f"{backend.model.prompt_length} tokens and the model takes 8"):
        backend.ask()


def test_a_request_id_may_be_used_once_at_a_time(scripted: Make) -> None:
    backend = scripted("0123456789" * 100)
    from dataclasses import replace

    request = replace(backend.request(max_tokens=500), request_id="mine")
    stream = backend.backend.stream(request)
    next(stream)
    with pytest.raises(RequestError, match="'mine' is in use"):
        backend.backend.stream(request)
    stream.close()
    wait_until(lambda: backend.backend.stats().num_running == 0)
    assert backend.backend.generate(request).request_id == "mine"
