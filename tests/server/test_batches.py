"""/v1/batches with OpenAI's own client: lines in and out, errors, cancelling, and servers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fixtures.batch_server import ANSWERED
from tests.fixtures.http_server import Running, running, wait_until
from tests.fixtures.scripted import ENDLESS
from tests.server.test_chat_completions import data_url, model_of
from tests.server.test_server_tools import TOOLS, add
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.backends.protocol import ChatRequest
from tusi.core.errors import CapacityError, EngineError, ReplicaLost
from tusi.server.config import ServerConfig
from tusi.server.state.database import StateFolder

CHAT = "/v1/chat/completions"


def line(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    if url == CHAT:
        body.setdefault("messages", [{"role": "user", "content": custom_id}])
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def begin(client: openai.OpenAI, lines: Sequence[dict[str, Any] | str], url: Any = CHAT, **options: Any) -> Any:
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    given = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
    return client.batches.create(input_file_id=given.id, endpoint=url, completion_window="24h", **options)


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    over = ("completed", "failed", "cancelled", "expired")
    wait_until(lambda: client.batches.retrieve(batch_id).status in over)
    return client.batches.retrieve(batch_id)


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def echo(request: ChatRequest) -> FakeReply:
    return FakeReply(content=f"You said {request.messages[0].text}")


def test_lines_are_answered_in_the_order_of_the_input(fake: FakeBackend) -> None:
    fake.queue(*[echo] * 9)
    with running(fake) as server:
        client = server.openai()
        lines = [line(f"n{number}", max_tokens=1000) for number in range(9)]
        lines.insert(4, line("wrong", temperature=-1))
        lines.insert(7, line("elsewhere", model="gpt-4"))
        batch = begin(client, lines, metadata={"for": "me"})
        assert (batch.status, batch.metadata) == ("validating", {"for": "me"})
        batch = ended(client, batch.id)
        assert batch.status == "completed"
        assert batch.request_counts.model_dump() == {"total": 11, "completed": 9, "failed": 2}
        output, errors = (lines_of(client, one) for one in (batch.output_file_id, batch.error_file_id))
        assert [one["custom_id"] for one in output] == [f"n{number}" for number in range(9)]
        assert {one["response"]["status_code"] for one in output} == {200}
        assert output[3]["response"]["body"]["choices"][0]["message"]["content"] == "You said n3"
        assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [
            ("wrong", 400),
            ("elsewhere", 404),
        ]
        assert errors[0]["response"]["body"]["error"]["param"] == "temperature"
        assert [one.id for one in client.batches.list()] == [batch.id]
        assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_every_endpoint_runs_in_batches(tiny: Running) -> None:
    client, model = tiny.openai(), model_of(tiny)
    asks = {
        CHAT: {
            "model": model,
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url()}}]}],
        },
        "/v1/completions": {"model": model, "prompt": ["One,", "Two,"]},
        "/v1/responses": {"model": model, "input": "Hello"},
    }
    limits = {"/v1/responses": "max_output_tokens"}
    for url, body in asks.items():
        body |= {limits.get(url, "max_tokens"): 4, "seed": 3, "temperature": 1.0}
        if url == "/v1/responses":
            body["store"] = False
        batch = ended(client, begin(client, [line("a", url, **body)], url).id)
        (answer,) = lines_of(client, batch.output_file_id)
        with tiny.http() as http:
            asked = http.post(url, json=body).json()
        varying = ("id", "created", "created_at", "completed_at")
        same = [
            {key: value for key, value in one.items() if key not in varying}
            for one in (answer["response"]["body"], asked)
        ]
        assert _without_ids(same[0]) == _without_ids(same[1])


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _without_ids(v)
            for k, v in value.items()
            if k not in ("id", "prompt_tokens_details", "input_tokens_details")
        }
    return [_without_ids(one) for one in value] if isinstance(value, list) else value


def test_tools_of_the_server_run_in_batches(fake: FakeBackend) -> None:
    fake.queue(FakeReply(tool_calls=(add(),)), FakeReply(content="Two."))
    with running(fake, tools=TOOLS) as server:
        client = server.openai()
        batch = ended(client, begin(client, [line("a", tools=[{"type": "builtin"}])]).id)
        (answer,) = lines_of(client, batch.output_file_id)
    assert answer["response"]["body"]["choices"][0]["message"]["content"].endswith("Two.")
    assert answer["response"]["body"]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line("a"), "{broken"], "invalid_json_line", 2),
        ([line("a"), line("a")], "duplicate_custom_id", 2),
        ([line("a", "/v1/completions", prompt="x")], "mismatched_endpoint", 1),
        ([line("a", stream=True)], "unsupported_parameter", 1),
        ([{"method": "POST", "url": CHAT, "body": {}}], "missing_required_parameter", 1),
        ([line("a") | {"method": "GET"}], "invalid_method", 1),
        ([line("a") | {"extra": 1}], "invalid_json_line", 1),
        ([], "empty_file", None),
        ([json.dumps(line("a", seed=1)).replace(" 1,", " NaN,")], "invalid_json_line", 1),
        (["[" * 100_000], "invalid_json_line", 1),
    ],
)
def test_an_input_with_a_fault_is_refused_as_a_whole(
    fake: FakeBackend, lines: Any, code: str, number: int | None
) -> None:
    with running(fake) as server:
        batch = ended(server.openai(), begin(server.openai(), lines).id)
    assert batch.status == "failed"
    assert batch.output_file_id is None
    assert [(error.code, error.line) for error in batch.errors.data] == [(code, number)]
    assert not fake.requests


def test_lines_over_which_the_engine_stumbles_are_tried_again(fake: FakeBackend) -> None:
    stumbles = [CapacityError("full. Wait.", retry_after=0.01), ReplicaLost("killed. Try again.")]
    fake.queue(*stumbles, FakeReply(content="Half", error=EngineError("a step failed.")), echo)
    with running(fake) as server:
        client = server.openai()
        batch = ended(client, begin(client, [line("a")]).id)
        (answer,) = lines_of(client, batch.output_file_id)
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == "You said a"
    assert len(fake.requests) == 4


def test_a_batch_is_cancelled_and_keeps_what_is_finished(fake: FakeBackend) -> None:
    reached, is_cancelled = threading.Event(), threading.Event()

    def endless(_request: ChatRequest) -> FakeReply:
        reached.set()
        assert is_cancelled.wait(30)
        return ENDLESS

    fake.queue(echo, endless)
    with running(fake, ServerConfig(batch_concurrency=1, drain_seconds=5)) as server:
        client = server.openai()
        batch = begin(client, [line("a"), line("b"), line("c")])
        assert reached.wait(30)
        assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
        is_cancelled.set()
        batch = ended(client, batch.id)
        assert (batch.status, batch.request_counts.completed) == ("cancelled", 1)
        assert [one["custom_id"] for one in lines_of(client, batch.output_file_id)] == ["a"]
        assert client.batches.cancel(batch.id).status == "cancelled"
        done = begin(client, [])
        ended(client, done.id)
        with pytest.raises(openai.BadRequestError, match="can no longer be cancelled"):
            client.batches.cancel(done.id)


def test_a_killed_server_loses_no_finished_line_and_none_is_run_twice(fake: FakeBackend, tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    command = [sys.executable, "-m", "tests.fixtures.batch_server", str(state), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            batch = begin(client, [line(f"n{number}") for number in range(9)])
            wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed == ANSWERED)
        os.kill(process.pid, signal.SIGKILL)
    assert len(log.read_text().split()) == ANSWERED
    fake.queue(*[echo] * 4)
    with running(fake, ServerConfig(state_dir=state, drain_seconds=5)) as server:
        client = server.openai()
        after = ended(client, batch.id)
        answers = lines_of(client, after.output_file_id)
    assert (after.status, after.request_counts.completed) == ("completed", 9)
    told = [one["response"]["body"]["choices"][0]["message"]["content"] for one in answers]
    assert told == [*(f"first n{number}" for number in range(5)), *(f"You said n{number}" for number in range(5, 9))]
    assert sorted(request.messages[0].text for request in fake.requests) == ["n5", "n6", "n7", "n8"]


def test_of_two_servers_one_runs_the_batches_and_the_other_takes_over(tmp_path: Path) -> None:
    config = ServerConfig(state_dir=tmp_path, drain_seconds=5)
    first, second = FakeBackend([echo] * 2), FakeBackend([echo] * 2)
    with running(second, config) as other:
        wait_until(lambda: other.openai().files.list() is not None)
        with running(first, config) as server:
            batch = begin(server.openai(), [line("a")])
            assert ended(other.openai(), batch.id).status == "completed"
        assert len(first.requests) + len(second.requests) == 1
    with running(first, config) as server:
        assert ended(server.openai(), begin(server.openai(), [line("b")]).id).status == "completed"
    assert len(first.requests) + len(second.requests) == 2


def test_an_expired_batch_says_so_line_by_line(fake: FakeBackend, tmp_path: Path) -> None:
    def expire(_request: ChatRequest) -> FakeReply:
        state = StateFolder(tmp_path)
        with state.transaction() as database:
            database.execute("UPDATE batches SET expires_at = 1")
        state.close()
        return ENDLESS

    fake.queue(expire)
    with running(fake, ServerConfig(state_dir=tmp_path, batch_concurrency=1, drain_seconds=5)) as server:
        client = server.openai()
        batch = ended(client, begin(client, [line("a"), line("b")]).id)
        assert batch.status == "expired"
        # The first line may end before anybody looks at the clock again; the second is never begun.
        expired = {one["custom_id"]: one["error"]["code"] for one in lines_of(client, batch.error_file_id)}
        assert expired in ({"b": "batch_expired"}, {"a": "batch_expired", "b": "batch_expired"})
        counts = batch.request_counts
        assert (counts.total, counts.failed) == (2, len(expired))
