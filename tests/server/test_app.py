"""What surrounds the endpoints: keys, sizes, queues, clients who leave, stopping."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import httpx
import openai
import pytest

from tests.fixtures.http_server import Running, running, wait_until
from tests.server.test_chat_completions import HELLO, data_url, model_of
from tusi.backends.fake import FakeBackend
from tusi.backends.local.backend import LocalBackend
from tusi.backends.protocol import ChatDelta, ChatRequest
from tusi.core.errors import ConfigError, EngineError
from tusi.server.app import bind
from tusi.server.config import ServerConfig

LONG = {"max_tokens": 7000, "extra_body": {"ignore_eos": True, "thinking_budget": 6000}}


class GatedBackend(FakeBackend):
    """Says its first word at once and the rest when the gate opens."""

    def __init__(self, replies: list[str]) -> None:
        super().__init__(replies)
        self.gate = threading.Event()

    def stream(self, request: ChatRequest) -> Generator[ChatDelta, None, None]:
        deltas = super().stream(request)

        def gated() -> Iterator[ChatDelta]:
            yield next(deltas)
            self.gate.wait(10)
            yield from deltas

        return (delta for delta in gated())


class BrokenBackend(FakeBackend):
    """Has a fault that nobody thought of."""

    def stream(self, request: ChatRequest) -> Generator[ChatDelta, None, None]:
        raise ZeroDivisionError("secret detail")


def ask(server: Running, **options: object) -> httpx.Response:
    with server.http() as client:
        return client.post("/v1/chat/completions", json={"messages": HELLO}, **options)  # type: ignore[arg-type]


def test_the_key_is_asked_for(fake: FakeBackend) -> None:
    fake.queue("Yes.")
    with running(fake, ServerConfig(api_keys=("other", "s3cret"))) as server:
        with pytest.raises(openai.AuthenticationError, match="Send the header Authorization"):
            server.openai("wrong").models.list()
        assert ask(server).status_code == 401
        assert ask(server, headers={"Authorization": "Bearer s3cret é".encode("latin-1")}).status_code == 401
        client = server.openai("s3cret")
        assert client.chat.completions.create(model="fake", messages=HELLO).choices[0].message.content == "Yes."
        with server.http() as http:
            assert http.get("/health").status_code == 200
            assert http.get("/openapi.json").status_code == 401
    assert len(fake.requests) == 1


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_over_the_limit_is_refused(fake: FakeBackend, is_declared: bool) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 5000}]}).encode()
    with running(fake, ServerConfig(max_body_bytes=4000)) as server, server.http() as client:
        response = client.post(
            "/v1/chat/completions",
            content=body if is_declared else iter([body[:3000], body[3000:]]),
            headers={"Content-Type": "application/json"},
        )
    assert response.status_code == 413
    assert "Send smaller or fewer media" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"null", b'"x"', b"[" * 5000, b'{"n": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_object_is_a_400(served: Running, body: bytes) -> None:
    with served.http() as client:
        for path in ("/v1/chat/completions", "/v1/completions", "/tokenize"):
            response = client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 400, (path, response.text)
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_unknown_paths_and_methods_speak_openai_too(served: Running) -> None:
    with served.http() as client:
        for response, status in ((client.get("/v1/nothing"), 404), (client.get("/v1/completions"), 405)):
            assert (response.status_code, "message" in response.json()["error"]) == (status, True)


def test_a_fault_of_ours_tells_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with running(BrokenBackend()) as server:
        response = ask(server)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret detail" in caplog.text


def test_a_full_house_answers_429_and_then_takes_requests_again() -> None:
    backend = GatedBackend(["One.", "Two."])
    with running(backend, ServerConfig(max_requests=1)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, server)
        wait_until(lambda: backend.requests)
        refused = ask(server)
        backend.gate.set()
        assert first.result().status_code == 200
        assert ask(server).json()["choices"][0]["message"]["content"] == "Two."
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert server.metric('tusi_requests_total{endpoint="chat.completions",outcome="busy"}') == 1


def test_what_runs_is_finished_before_the_server_stops() -> None:
    backend = GatedBackend(["A whole answer."])
    with running(backend) as server, server.openai() as client:
        stream = client.chat.completions.create(model="fake", messages=HELLO, stream=True)
        said = [next(stream), next(stream)]
        server.server.should_exit = True  # what SIGTERM does
        backend.gate.set()
        said += stream
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == "A whole answer."
    with pytest.raises(httpx.ConnectError):
        ask(server)


def test_what_outlasts_the_drain_is_cut_and_freed(tiny_backend: LocalBackend) -> None:
    body = {"messages": HELLO, "stream": True, "max_tokens": 7000, "ignore_eos": True, "thinking_budget": 6000}
    with (
        running(tiny_backend, ServerConfig(drain_seconds=1)) as server,
        server.http() as client,
        client.stream("POST", "/v1/chat/completions", json=body | {"n": 4}) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.server.should_exit = True
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert not any("[DONE]" in line for line in lines)
    wait_until(lambda: tiny_backend.stats().num_used_blocks == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_who_leaves_frees_the_blocks(tiny: Running, tiny_backend: LocalBackend, stream: bool) -> None:
    body = {"messages": HELLO, "stream": stream, "max_tokens": 7000, "ignore_eos": True, "thinking_budget": 6000}
    before = tiny.metric('tusi_requests_total{endpoint="chat.completions",outcome="disconnected"}')
    with tiny.http() as client:
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.iter_lines()  # kept: dropping it would leave
                next(lines)
                wait_until(lambda: tiny_backend.stats().num_running)
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body, timeout=0.3)
    wait_until(lambda: tiny_backend.stats().num_used_blocks == 0)
    wait_until(
        lambda: tiny.metric('tusi_requests_total{endpoint="chat.completions",outcome="disconnected"}') == before + 1
    )
    assert tiny.metric("tusi_requests_in_flight") == 0


def test_many_clients_some_of_whom_leave(tiny: Running, tiny_backend: LocalBackend) -> None:
    model = model_of(tiny)

    def visit(number: int) -> str:
        random = Random(number)
        stays = random.random() < 0.5
        options = {"max_tokens": 12} if stays else LONG
        said = 0
        with tiny.openai() as client:
            stream = client.chat.completions.create(model=model, messages=HELLO, stream=True, **options)
            for chunk in stream:
                if chunk.choices[0].finish_reason:
                    return chunk.choices[0].finish_reason
                said += 1
                if not stays and said > random.randrange(6):
                    stream.close()
                    return "left"
        raise AssertionError("the stream ended without a reason")

    with ThreadPoolExecutor(12) as pool:
        ends = list(pool.map(visit, range(24)))
    assert set(ends) <= {"left", "length", "stop"}
    assert "left" in ends
    assert set(ends) != {"left"}
    wait_until(lambda: tiny_backend.stats().num_used_blocks == 0)
    assert tiny_backend.stats().num_waiting == 0
    wait_until(lambda: tiny.metric("tusi_requests_in_flight") == 0)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("/etc/passwd", "local files may not be read here"),
        ("file:///etc/passwd", "local files may not be read here"),
        ("http://127.0.0.1:1/x.png", "127.0.0.1"),
        ("http://169.254.169.254/latest", "169.254.169.254"),
        ("ftp://example.com/x.png", "Use http, https or a data URL"),
        ("data:image/png;base64,AAAA", "is in no known format"),
        (data_url()[: len("data:image/png;base64,") + 80], "cannot be decoded"),
    ],
)
def test_media_that_may_not_be_read_are_refused(tiny: Running, url: str, advice: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with tiny.http() as client:
        response = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert response.status_code == 400, response.text
    assert advice in response.json()["error"]["message"]


def test_a_prompt_that_is_too_long_says_so(tiny: Running) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tiny.openai().chat.completions.create(
            model=model_of(tiny), messages=[{"role": "user", "content": "word " * 9000}]
        )
    assert caught.value.code == "context_length_exceeded"


def test_a_dead_engine_is_unhealthy(tiny_model: object) -> None:
    backend = LocalBackend.load(str(tiny_model), dtype="fp32", max_model_len=64)
    with running(backend) as server, server.http() as client:
        assert client.get("/health").json() == {"status": "ok"}
        backend.close()
        assert client.get("/health").status_code == 503
        assert server.metric("tusi_engine_up") == 0
        with pytest.raises(EngineError):
            backend.stats()
        assert ask(server).status_code == 500


def test_health_does_not_wait_for_a_long_step(tiny: Running, tiny_backend: LocalBackend) -> None:
    is_stepping, step_may_end = threading.Event(), threading.Event()

    def long_step(_core: object) -> bool:
        is_stepping.set()
        return step_may_end.wait(60)

    with ThreadPoolExecutor(1) as pool, tiny.http() as client:
        step = pool.submit(tiny_backend._engine.call, long_step)
        try:
            assert is_stepping.wait(30)
            assert client.get("/health").status_code == 200
            assert not step.done()
        finally:
            step_may_end.set()
        assert step.result()


def test_metrics_count_what_was_done(tiny: Running) -> None:
    ok = 'tusi_requests_total{endpoint="completions",outcome="ok"}'
    tokens = 'tusi_tokens_total{kind="completion"}'
    before = (tiny.metric(ok), tiny.metric(tokens))
    tiny.openai().completions.create(model=model_of(tiny), prompt="One", max_tokens=5, extra_body={"ignore_eos": True})
    assert (tiny.metric(ok), tiny.metric(tokens)) == (before[0] + 1, before[1] + 5)
    assert tiny.metric("tusi_time_to_first_token_seconds_count") > 0
    assert tiny.metric("tusi_kv_blocks") > 0
    assert tiny.metric("tusi_engine_up") == 1
    resident = tiny.metric("tusi_memory_resident_bytes")
    assert resident > 2**24
    # Two readings at two moments, and the kernel counts both a little late.
    assert tiny.metric("tusi_memory_peak_bytes") > 0.9 * resident


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="Choose another --port"):
            bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("options", [{"max_requests": 0}, {"api_keys": ("",)}, {"api_keys": ("schlüssel",)}])
def test_settings_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"Correct it|Choose another"):
        ServerConfig(**options)  # type: ignore[arg-type]
