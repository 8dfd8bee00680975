"""Who is let in, and what a body may cost."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.fixtures.http_server import Running, running
from tests.server.test_chat_completions import HELLO
from tusi.backends.fake import FakeBackend
from tusi.server.config import ServerConfig

BODY = json.dumps({"messages": HELLO}).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def local(fake: FakeBackend) -> Iterator[Running]:
    """A server as `tusi serve` starts it: for this machine, without a key."""
    with running(fake, ServerConfig(hosts=("my-box",), drain_seconds=5)) as server:
        yield server


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("LOCALHOST", 200), ("tusi.localhost", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200),
        ("10.1.2.3", 200), ("my-box:8000", 200),
        ("evil.example", 403), ("evil.example:8000", 403), ("127.0.0.1.evil.example", 403), ("localhost.evil", 403),
        ("notlocalhost", 403), ("[::1", 403), ("my-box.evil", 403),
    ],
)  # fmt: skip
def test_a_name_that_a_stranger_may_have_given_this_machine_is_refused(local: Running, host: str, status: int) -> None:
    with local.http() as client:
        response = client.get("/v1/models", headers={"Host": host})
        assert response.status_code == status
        if status == 403:
            assert response.json()["error"]["code"] == "wrong_host"
            assert "--allowed-host" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200), ("http://localhost:3000", 200), ("http://127.0.0.1:9", 200), ("http://my-box", 200),
        ("https://evil.example", 403), ("null", 403), ("http://localhost.evil.example", 403),
    ],
)  # fmt: skip
def test_another_sites_page_may_not_ask(local: Running, fake: FakeBackend, origin: str | None, status: int) -> None:
    fake.queue("Yes.")
    headers = JSON if origin is None else JSON | {"Origin": origin}
    with local.http() as client:
        assert client.post("/v1/chat/completions", content=BODY, headers=headers).status_code == status
    assert len(fake.requests) == (status == 200)


def test_names_are_asked_for_only_where_nothing_else_protects(fake: FakeBackend) -> None:
    with running(fake, ServerConfig(api_keys=("k",))) as server, server.http() as client:
        headers = {"Host": "anything.example", "Authorization": "Bearer k"}
        assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_page_cannot_ask_without_being_asked_first(local: Running, fake: FakeBackend) -> None:
    """A body that browsers send across sites without a preflight is not read as JSON."""
    with local.http() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", None):
            headers = {} if kind is None else {"Content-Type": kind}
            assert client.post("/v1/chat/completions", content=BODY, headers=headers).status_code == 400
    assert not fake.requests


def test_compressed_bodies_are_refused(local: Running) -> None:
    with local.http() as client:
        for encoding, status in (("gzip", 415), ("br", 415), ("identity", 400)):
            headers = JSON | {"Content-Encoding": encoding}
            response = client.post("/v1/chat/completions", content=b"\x1f\x8b\x08", headers=headers)
            assert response.status_code == status, encoding


def test_all_bodies_together_are_bounded_and_given_back(fake: FakeBackend) -> None:
    config = ServerConfig(max_body_bytes=4000, max_held_bytes=2000, drain_seconds=5)
    with running(fake, config) as server, server.http() as client:
        for _ in range(5):  # each is given back at its end, also those that are refused
            large = json.dumps({"messages": [{"role": "user", "content": "x" * 3000}]}).encode()
            refused = client.post("/v1/chat/completions", content=large, headers=JSON)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"]["code"] == "server_busy"
            assert client.post("/v1/chat/completions", content=b"x" * 1500, headers=JSON).status_code == 400
        fake.queue("Yes.")
        assert client.post("/v1/chat/completions", content=BODY, headers=JSON).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(fake: FakeBackend) -> None:
    with running(fake, ServerConfig(body_seconds=1, drain_seconds=5)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            started = time.monotonic()
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")
            assert time.monotonic() - started > 0.5


def test_long_heads_are_refused(local: Running) -> None:
    host, port = local.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        answer = b""
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            for number in range(4000):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))
            connection.sendall(b"\r\n")
            answer = connection.recv(4096)
        except ConnectionError:
            pass  # it hung up, which is just as well
        assert not answer.startswith(b"HTTP/1.1 2")


def test_settings_of_the_guard_are_checked() -> None:
    from tusi.core.errors import ConfigError

    for name in ("max_held_bytes", "body_seconds"):
        with pytest.raises(ConfigError, match=name):
            ServerConfig(**{name: 0})  # type: ignore[arg-type]
