"""What every Backend promises, checked on the fake one and on the one that runs a (tiny, random) model.

Draws are seeded, so that two runs of one request are the same run.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tusi.backends.collect import collect
from tusi.backends.fake import FakeBackend
from tusi.backends.local.backend import LocalBackend
from tusi.backends.protocol import Backend, ChatDelta, ChatRequest
from tusi.chat.messages import ImagePart, Message, TextPart, VideoPart
from tusi.core.errors import EngineError
from tusi.engine.sampling_params import SamplingParams

MakeBackend = Callable[[], Backend]
TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object", "properties": {}}}}
REPLIES = [
    "Let me see... 一只猫。\n</think>\n\nA cat. 🐈 And then some more words to be cut.",
    "No end to this thought, which goes on and on and on and on and on and on and on",
    'Zoom.\n</think>\n\n\n<tool_call>\n{"name": "zoom", "arguments": {"a": [1]}}\n</tool_call>\n',
]


def picture(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ask(*parts: object, tools: tuple[object, ...] = (), request_id: str = "same", **params: object) -> ChatRequest:
    content = tuple(TextPart(part) if isinstance(part, str) else part for part in parts) or (TextPart("Hello?"),)
    return ChatRequest(
        messages=(Message(role="user", content=content),),  # type: ignore[arg-type]
        tools=tools,  # type: ignore[arg-type]
        sampling_params=SamplingParams(**{"seed": 7, "max_tokens": 40, **params}),  # type: ignore[arg-type]
        request_id=request_id,
    )


def many_requests() -> Iterable[ChatRequest]:
    yield ask()
    yield ask(temperature=0.0)
    yield ask(max_tokens=1)
    yield ask(thinking_budget=0)
    yield ask(thinking_budget=5, logprobs=2)
    yield ask(logprobs=0, n=3)
    yield ask(stop=("e", "a"), thinking_budget=4, max_tokens=80)
    yield ask(stop=("on and",), include_stop_str_in_output=True)
    yield ask(tools=(TOOL,), max_tokens=120)
    yield ask(min_tokens=20, top_p=0.5, top_k=20, repetition_penalty=1.1)
    yield ask(ImagePart(picture(1)), "What is it?")
    yield ask("Compare ", ImagePart(picture(1)), " with ", ImagePart(picture(2, (100, 50))), ".", n=2)
    yield ask(VideoPart((picture(3), picture(4), picture(5)), {"fps": 1.0}), "What happens?")


@pytest.fixture(params=["fake", "local"])
def make_backend(request: pytest.FixtureRequest, local_backend: LocalBackend) -> MakeBackend:
    """Each call gives a backend that is as good as new."""
    if request.param == "local":
        return lambda: local_backend
    return lambda: FakeBackend(REPLIES * 3, cut=2)


def streamed(backend: Backend, request: ChatRequest) -> list[ChatDelta]:
    return list(backend.stream(request))


@pytest.mark.parametrize("request_", list(many_requests()), ids=lambda r: "")
def test_streamed_and_whole_answers_are_the_same(make_backend: MakeBackend, request_: ChatRequest) -> None:
    whole = make_backend().generate(request_)
    choices, usage = collect(streamed(make_backend(), request_), n=request_.sampling_params.n)
    # What the second run finds in the prefix cache is the one thing that may differ.
    assert replace(usage, cached_tokens=0) == replace(whole.usage, cached_tokens=0)
    for ours, theirs in zip(choices, whole.choices, strict=True):
        assert replace(ours, logprobs=()) == replace(theirs, logprobs=())
        assert [entry.token_id for entry in ours.logprobs] == [entry.token_id for entry in theirs.logprobs]
        for one, other in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-3)


@pytest.mark.parametrize("request_", list(many_requests()), ids=lambda r: "")
def test_the_form_of_a_stream(make_backend: MakeBackend, request_: ChatRequest) -> None:
    params = request_.sampling_params
    deltas = streamed(make_backend(), request_)
    assert {delta.index for delta in deltas} == set(range(params.n))
    for index in range(params.n):
        mine = [delta for delta in deltas if delta.index == index]
        assert [delta.finish_reason is None for delta in mine] == [True] * (len(mine) - 1) + [False]
    assert [delta.usage is None for delta in deltas] == [True] * (len(deltas) - 1) + [False]
    choices, usage = collect(deltas, n=params.n)
    assert usage.completion_tokens == sum(len(choice.token_ids) for choice in choices)
    for choice in choices:
        assert len(choice.token_ids) <= (params.max_tokens or 0)
        assert len(choice.logprobs) == (0 if params.logprobs is None else len(choice.token_ids))
        if choice.stop_reason in params.stop and not params.include_stop_str_in_output:
            assert str(choice.stop_reason) not in choice.content


def test_the_number_of_tokens_is_what_was_allowed(make_backend: MakeBackend) -> None:
    [choice] = make_backend().generate(ask(max_tokens=9, min_tokens=9)).choices
    assert (len(choice.token_ids), choice.finish_reason) == (9, "length")


def test_a_thinking_budget_leaves_an_answer(make_backend: MakeBackend) -> None:
    result = make_backend().generate(ask(thinking_budget=6, max_tokens=40))
    [choice] = result.choices
    assert choice.thinking_truncated
    assert result.usage.reasoning_tokens == 6
    assert choice.content
    assert choice.text.startswith(f"{choice.reasoning}\n</think>\n\n")


def test_completions_are_drawn_apart_and_the_first_as_if_alone(make_backend: MakeBackend) -> None:
    alone = make_backend().generate(ask(max_tokens=20)).choices[0]
    first, second = make_backend().generate(ask(max_tokens=20, n=2)).choices
    assert first.token_ids == alone.token_ids
    assert second.token_ids != first.token_ids


def test_an_abandoned_stream_leaves_nothing_behind(make_backend: MakeBackend) -> None:
    backend = make_backend()
    stream = backend.stream(ask(max_tokens=1000, min_tokens=900))
    next(stream)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    dropped = backend.stream(ask(max_tokens=1000, min_tokens=900, request_id="other"))
    next(dropped)
    del dropped
    gc.collect()
    assert backend.generate(ask(max_tokens=2)).choices[0].token_ids
    if isinstance(backend, LocalBackend):
        stats = backend.stats()
        assert (stats.num_running, stats.num_waiting, stats.num_used_blocks) == (0, 0, 0)


def test_abort_ends_a_stream_with_abort(make_backend: MakeBackend) -> None:
    backend = make_backend()
    stream = backend.stream(ask(max_tokens=1000, min_tokens=900))
    next(stream)
    backend.abort("same")
    assert list(stream)[-1].finish_reason == "abort"


def test_many_threads_get_what_each_would_get_alone(make_backend: MakeBackend) -> None:
    backend = make_backend()
    if isinstance(backend, FakeBackend):
        pytest.skip("replies go to whoever comes first")
    requests = [replace(request, request_id=f"r{i}") for i, request in enumerate(many_requests())]
    alone = [backend.generate(request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(
            pool.map(lambda request: collect(backend.stream(request), n=request.sampling_params.n), requests)
        )
    for result, (choices, usage) in zip(alone, together, strict=True):
        assert replace(usage, cached_tokens=0) == replace(result.usage, cached_tokens=0)
        assert [choice.token_ids for choice in choices] == [choice.token_ids for choice in result.choices]
        assert [choice.content for choice in choices] == [choice.content for choice in result.choices]


def test_a_closed_backend_says_so() -> None:
    backend = FakeBackend(["x"])
    stream = backend.stream(ask())
    backend.close()
    with pytest.raises(EngineError, match="closed"):
        list(stream)
    with pytest.raises(EngineError, match="make a new one"):
        backend.generate(ask())


# What only a model can get wrong


def test_the_same_prompt_with_another_picture_does_not_hit_the_cache(local_backend: LocalBackend) -> None:
    def logprobs(seed: int) -> tuple[list[float], int]:
        request = ask(ImagePart(picture(seed, (120, 120))), "What?", temperature=0.0, logprobs=0, max_tokens=1)
        result = local_backend.generate(request)
        return [entry.logprob for entry in result.choices[0].logprobs], result.usage.cached_tokens

    first, _ = logprobs(50)
    again, cached_again = logprobs(50)
    other, cached_other = logprobs(51)
    assert again == pytest.approx(first, abs=1e-4)
    assert cached_again > cached_other
    assert other != pytest.approx(first, abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (29, 300), (640, 480), (37, 1400)])
def test_image_tokens_are_counted_and_never_mismatch(local_backend: LocalBackend, size: tuple[int, int]) -> None:
    result = local_backend.generate(ask(ImagePart(picture(9, size)), ImagePart(picture(8)), max_tokens=1))
    assert result.prompt_token_ids is not None
    placeholder = local_backend.frontend.config.image_token_id
    assert result.usage.image_tokens == result.prompt_token_ids.count(placeholder)


def test_pictures_of_many_turns_and_of_tools_keep_their_places(local_backend: LocalBackend) -> None:
    messages = (
        Message(role="user", content=(ImagePart(picture(1)), TextPart("Zoom in."))),
        Message(role="assistant", reasoning="Zooming.", content=(TextPart("Here."),)),
        Message(role="tool", tool_call_id="1", content=(ImagePart(picture(2)), TextPart("done"))),
        Message(role="user", content=(TextPart("And this?"), ImagePart(picture(3)))),
    )
    request = replace(ask(max_tokens=3), messages=messages)
    result = local_backend.generate(request)
    assert result.prompt is not None
    assert result.prompt.count("<|image@placeholder|>") == 3
    assert result.usage.image_tokens > 0


def test_a_picture_is_a_vector_that_does_not_depend_on_who_asks(local_backend: LocalBackend) -> None:
    first, again, other = (local_backend.embed_image(ImagePart(picture(seed))) for seed in (1, 1, 2))
    assert first.shape == (local_backend.frontend.config.text_config.hidden_size,)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    small = local_backend.embed_image(ImagePart(picture(1, (400, 300)), {"max_pixels": 4 * 784}))
    assert not np.allclose(small, local_backend.embed_image(ImagePart(picture(1, (400, 300)))))
