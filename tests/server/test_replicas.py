"""The server over several engine processes: what clients see when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.http_server import Running, running, wait_until
from tests.fixtures.talking_backend import TalkingBackend
from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.loading import load_frontend
from tusi.backends.replicas.backend import ReplicaBackend
from tusi.backends.replicas.supervisor import Patience

QUICK = Patience(ping=0.05, silence=1.0, death=2.0, first_wait=0.5, longest_wait=1.0)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """While this exists, no replica can be started again."""
    return tmp_path / "broken"


@pytest.fixture
def two(broken: Path) -> Iterator[tuple[ReplicaBackend, Running]]:
    backend = ReplicaBackend(partial(TalkingBackend, broken), 2, num_threads=2, patience=QUICK)
    try:
        with running(backend) as server:
            yield backend, server
    finally:
        backend.close()


def body(text: str, *, stream: bool = False) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "stream": stream}


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def kill(backend: ReplicaBackend, index: int) -> None:
    pid = backend.status()[index].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_killed_replica_loses_its_running_requests_only(two: tuple[ReplicaBackend, Running]) -> None:
    backend, server = two
    with server.http() as client:
        with (
            client.stream("POST", "/v1/chat/completions", json=body("count 100 a", stream=True)) as first,
            client.stream("POST", "/v1/chat/completions", json=body("count 100 b", stream=True)) as second,
        ):
            streams = [events(first), events(second)]
            for stream in streams:
                next(stream)
            assert [one.load for one in backend.status()] == [1, 1]
            kill(backend, 0)
            ends = [list(stream)[-1] for stream in streams]
        assert sorted("error" in end for end in ends) == [False, True]
        lost = next(end["error"] for end in ends if "error" in end)
        assert (lost["type"], lost["code"]) == ("server_error", "replica_lost")
        assert "Send the request again" in lost["message"]
        # The other one goes on meanwhile.
        answer = client.post("/v1/chat/completions", json=body("count 2"))
        assert answer.json()["choices"][0]["message"]["content"] == "0 1 "
        wait_until(lambda: client.get("/health").json()["status"] == "ok")
    assert server.metric('tusi_replica_restarts_total{replica="0"}') == 1
    assert server.metric('tusi_replica_restarts_total{replica="1"}') == 0
    assert server.metric('tusi_replica_load{replica="1"}') == 0
    assert server.metric("tusi_requests_in_flight") == 0


def test_a_lost_request_is_a_503_that_says_when_to_come_again(
    two: tuple[ReplicaBackend, Running], broken: Path
) -> None:
    _, server = two
    broken.touch()
    with server.http() as client:
        answer = client.post("/v1/chat/completions", json=body("die"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["code"] == "replica_lost"
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert client.post("/v1/chat/completions", json=body("die")).status_code == 503
        wait_until(lambda: client.get("/health").status_code == 503)
        answer = client.post("/v1/chat/completions", json=body("count 2"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_restarting")
        assert int(answer.headers["retry-after"]) >= 1
        broken.unlink()
        wait_until(lambda: client.get("/health").status_code == 200)
        assert client.post("/v1/chat/completions", json=body("count 2")).status_code == 200


def test_a_client_who_leaves_ends_the_request_in_the_replica(two: tuple[ReplicaBackend, Running]) -> None:
    backend, server = two
    with (
        server.http() as client,
        client.stream("POST", "/v1/chat/completions", json=body("count 3000", stream=True)) as response,
    ):
        said = events(response)  # kept: dropping it would leave
        next(said)
        assert sum(one.load for one in backend.status()) == 1
    wait_until(lambda: not any(one.load for one in backend.status()))


def test_a_batch_survives_a_killed_replica(two: tuple[ReplicaBackend, Running]) -> None:
    backend, server = two
    client = server.openai()
    texts = [json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions",
                         "body": {"messages": [{"role": "user", "content": f"count 60 {n}"}]}})
             for n in range(6)]  # fmt: skip
    given = client.files.create(file=("in.jsonl", "\n".join(texts).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h")
    wait_until(lambda: all(one.load for one in backend.status()))
    kill(backend, 1)
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed")
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    assert (counts.completed, counts.failed) == (6, 0)
    assert sum(one.num_restarts for one in backend.status()) == 1


def test_real_engines_answer_every_endpoint(tiny_model: Path) -> None:
    load = partial(LocalBackend.load, str(tiny_model), dtype="fp32", max_model_len=256)
    backend = ReplicaBackend(load, 1, num_threads=1, frontend=load_frontend(tiny_model, name="tiny"))
    try:
        with running(backend) as server, server.http() as client:
            assert client.get("/v1/models").json()["data"][0]["max_model_len"] == 256
            ask = {"prompt": "One", "max_tokens": 4, "ignore_eos": True, "logprobs": 1, "temperature": 0}
            whole = client.post("/v1/completions", json=ask).json()["choices"][0]
            assert len(whole["logprobs"]["tokens"]) == 4
            count = client.post("/tokenize", json={"messages": body("Hello?")["messages"]}).json()["count"]
            chat = client.post("/v1/chat/completions", json=body("Hello?") | {"max_tokens": 3}).json()
            assert chat["usage"]["prompt_tokens"] == count
            assert server.metric('tusi_engine_up{replica="0"}') == 1
            assert server.metric('tusi_kv_blocks{replica="0"}') > 0
            assert server.metric('tusi_kv_blocks_used{replica="0"}') == 0
    finally:
        backend.close()
