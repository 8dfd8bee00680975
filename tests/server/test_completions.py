"""/v1/completions, /v1/models, /tokenize and /detokenize."""

from __future__ import annotations

import openai
import pytest

from tests.fixtures.http_server import Running, running
from tests.server.test_chat_completions import model_of, picture_message
from tusi.backends.fake import FakeBackend
from tusi.server.config import ServerConfig


@pytest.mark.parametrize("prompt", ["One, two,", ["One, two,"], [5, 6, 7]])
def test_streamed_equals_unstreamed(tiny: Running, prompt: object) -> None:
    ask = {"model": model_of(tiny), "prompt": prompt, "max_tokens": 12, "seed": 3, "n": 2}
    client = tiny.openai()
    whole = client.completions.create(**ask)
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        usage = chunk.usage
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert usage.completion_tokens == whole.usage.completion_tokens > 0
    assert texts[0]


@pytest.mark.parametrize("ids", [False, True])
def test_a_completion_begins_with_its_prompt_if_asked(tiny: Running, ids: bool) -> None:
    client, model = tiny.openai(), model_of(tiny)
    texts = ["One, two,", "Red, green,"]
    with tiny.http() as http:
        tokens = [http.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in texts]
    ask = {"model": model, "prompt": tokens if ids else texts, "max_tokens": 5, "seed": 3, "n": 2}
    plain, echoed = client.completions.create(**ask), client.completions.create(**ask, echo=True)
    prompts = [texts[choice.index // 2] for choice in plain.choices]
    wanted = [prompt + choice.text for prompt, choice in zip(prompts, plain.choices, strict=True)]
    assert [choice.text for choice in echoed.choices] == wanted
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(**ask, echo=True, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == wanted


@pytest.mark.parametrize(
    ("body", "param", "advice"),
    [
        ({"echo": True, "logprobs": 1}, "echo", "Leave one of them out"),
        ({"suffix": "x"}, "suffix", "leave it out"),
        ({"best_of": 3}, "best_of", "Ask for n"),
        ({"prompt": []}, "prompt", "Give a text, token ids, or a list of them"),
        ({"prompt": ["a", "<|IMAGE_PLACEHOLDER|>"]}, "images", "there must be as many"),
        ({"prompt": ["a"] * 300}, "prompt", "Send fewer at a time"),
        ({"prompt": [99999999]}, "prompt_token_ids", "ids run from 0"),
        ({"logprobs": 21}, "logprobs", "Correct this field"),
        ({"prompt": "<|IMAGE_PLACEHOLDER|>"}, "images", "there must be as many"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    tiny: Running, body: dict[str, object], param: str, advice: str
) -> None:
    with tiny.http() as client:
        response = client.post("/v1/completions", json={"prompt": "One", **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert advice in error["message"]


def test_several_prompts_are_answered_in_their_order(tiny: Running) -> None:
    client, model = tiny.openai(), model_of(tiny)
    same = {"model": model, "max_tokens": 6, "seed": 3, "extra_body": {"ignore_eos": True}}
    with tiny.http() as http:
        ids = [http.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in ("One,", "Two,")]
    alone = [client.completions.create(prompt=text, **same).choices[0].text for text in ("One,", "Two,")]
    for prompts in (["One,", "Two,"], ids):
        both = client.completions.create(prompt=prompts, **same)
        assert [(choice.index, choice.text) for choice in both.choices] == [*enumerate(alone)]
        assert both.usage.completion_tokens == 12
        assert both.usage.prompt_tokens == sum(map(len, ids))
        texts = ["", ""]
        for chunk in client.completions.create(prompt=prompts, stream=True, **same):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == alone
    assert len(client.completions.create(prompt=["One,", "Two,"], n=2, **same).choices) == 4


def test_logprobs_in_the_old_format(tiny: Running) -> None:
    ask = {"model": model_of(tiny), "prompt": "One, two,", "max_tokens": 6, "seed": 3, "logprobs": 2}
    ask["extra_body"] = {"ignore_eos": True}
    whole = tiny.openai().completions.create(**ask).choices[0].logprobs
    assert len(whole.tokens) == len(whole.token_logprobs) == len(whole.top_logprobs) == 6
    assert all(1 <= len(top) <= 2 for top in whole.top_logprobs)
    assert whole.text_offset == [len("".join(whole.tokens[:i])) for i in range(6)]
    pieces = [chunk.choices[0].logprobs for chunk in tiny.openai().completions.create(**ask, stream=True)]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [item for piece in pieces for item in getattr(piece, name)] == getattr(whole, name)


def test_a_conversation_is_counted_as_it_is_sent(tiny: Running) -> None:
    messages = [picture_message()]
    with tiny.http() as client:
        reply = client.post("/tokenize", json={"messages": messages, "chat_template_kwargs": {}}).json()
        for body in ({}, {"prompt": "x", "messages": messages}, {"prompt": "x", "tools": []}):
            assert client.post("/tokenize", json=body).status_code == 400, body
    answer = tiny.openai().chat.completions.create(model=model_of(tiny), messages=messages, max_tokens=1)
    assert reply["count"] == len(reply["tokens"]) == answer.usage.prompt_tokens


def test_a_backend_without_tokens_says_so(served: Running) -> None:
    with served.http() as client:
        for path, body in (
            ("/v1/completions", {"prompt": "x"}),
            ("/tokenize", {"prompt": "x"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "logprobs": True}),
        ):
            response = client.post(path, json=body)
            assert (response.status_code, "local model" in response.text) == (503, True)


def test_models_are_listed_under_their_served_names(fake: FakeBackend) -> None:
    fake.queue("Yes.")
    with running(fake, ServerConfig(served_model_names=("ernie", "org/ernie"))) as server:
        client = server.openai()
        assert [model.id for model in client.models.list()] == ["ernie", "org/ernie"]
        assert client.models.retrieve("org/ernie").id == "org/ernie"
        with pytest.raises(openai.NotFoundError, match="Use 'ernie' or 'org/ernie'"):
            client.models.retrieve("fake")
        answer = client.chat.completions.create(model="org/ernie", messages=[{"role": "user", "content": "x"}])
        assert answer.model == "org/ernie"


def test_tokenize_and_back(tiny: Running) -> None:
    with tiny.http() as client:
        reply = client.post("/tokenize", json={"prompt": "Two 猫."}).json()
        assert reply["count"] == len(reply["tokens"]) > 0
        assert reply["max_model_len"] == 8192
        assert client.post("/detokenize", json={"tokens": reply["tokens"]}).json() == {"prompt": "Two 猫."}
        refused = client.post("/detokenize", json={"tokens": [1, -1]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tokens[1]")
        assert client.post("/tokenize", content=b'{"prompt": "a\\ud800"}').status_code == 400
