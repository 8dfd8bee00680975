"""`tusi serve`: its flags, and a real process that is asked and told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.cli.conftest import Run
from tests.fixtures.http_server import wait_until
from tusi.backends.fake import FakeBackend
from tusi.cli import session
from tusi.server import app


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `tusi serve` loads and runs, instead of doing it."""
    seen: dict[str, Any] = {}

    def load(name: str, options: session.ModelOptions) -> FakeBackend:
        seen.update(name=name, options=options)
        return FakeBackend()

    def run(backend: Any, config: Any, listener: Any, *, on_ready: Any, tools: Any) -> None:
        seen.update(config=config, address=listener.getsockname(), tools=tools)
        on_ready()

    monkeypatch.setattr(session, "load_backend", load)
    monkeypatch.setattr(app, "run", run)
    return seen


def test_every_flag_arrives(run: Run, asked: dict[str, Any], tmp_path: Path) -> None:
    code, _, err = run(
        "serve", "some/model", "--port", "0", "--api-key", "k", "--api-key", "l",
        "--served-model-name", "a", "--served-model-name", "b",
        "--max-model-len", "512", "--max-num-seqs", "3", "--max-num-batched-tokens", "64", "--dtype", "int8",
        "--kv-cache-dtype", "float32", "--weight-memory", "mmap", "--activations", "float32",
        "--max-requests", "9", "--replicas", "2", "--mm-processor-kwargs", '{"fps": 1}',
        "--limit-mm-per-prompt", '{"image": 2, "video": 0}',
        "--allowed-local-media-path", str(tmp_path), "--allowed-media-domains", "example.com",
        "--state-dir", str(tmp_path / "state"),
    )  # fmt: skip
    assert code == 0
    assert f"serving a, b at http://127.0.0.1:{asked['address'][1]}/v1" in err
    options, config = asked["options"], asked["config"]
    assert options.num_replicas == 2
    assert config.state_dir == tmp_path / "state"
    engine, limits = options.engine_config, options.media_limits
    assert (asked["name"], options.dtype, options.max_model_len) == ("some/model", "int8", 512)
    assert options.kv_cache_dtype == "float32"
    assert (options.weight_memory, options.activations) == ("mmap", "float32")
    assert (engine.max_num_seqs, engine.max_num_batched_tokens) == (3, 64)
    assert (limits.max_images, limits.max_videos, limits.allowed_domains) == (2, 0, ("example.com",))
    assert (limits.allow_local_files, limits.allowed_local_path) == (True, str(tmp_path))
    assert (config.api_keys, config.served_model_names, config.max_requests) == (("k", "l"), ("a", "b"), 9)
    assert config.mm_processor_kwargs == {"fps": 1}


def test_by_default_it_listens_here_alone_and_reads_no_files(run: Run, asked: dict[str, Any]) -> None:
    assert run("serve", "some/model", "--port", "0")[0] == 0
    limits = asked["options"].media_limits
    assert asked["address"][0] == "127.0.0.1"
    assert (limits.allow_local_files, limits.allow_private_addresses) == (False, False)


def test_the_tools_that_run_here_are_chosen_at_start(run: Run, asked: dict[str, Any]) -> None:
    assert run("serve", "some/model", "--port", "0")[0] == 0
    assert [tool.name for tool in asked["tools"].all] == ["image_zoom_in_tool", "calculator"]
    assert not asked["tools"].media_limits.allow_local_files
    code, _, err = run(
        "serve", "some/model", "--port", "0", "--tools", "calculator", "--max-turns", "3", "--max-tool-calls", "5"
    )
    assert (code, [tool.name for tool in asked["tools"].all]) == (0, ["calculator"])
    assert (asked["tools"].limits.max_turns, asked["tools"].limits.max_tool_calls) == (3, 5)
    assert "built-in tools: calculator" in err
    run("serve", "some/model", "--port", "0", "--tools", "none")
    assert asked["tools"].all == ()


def test_the_key_may_come_from_the_environment(run: Run, asked: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("TUSI_API_KEY", "secret")
    assert run("serve", "some/model", "--port", "0")[0] == 0
    assert asked["config"].api_keys == ("secret",)


def test_a_server_that_is_open_to_all_says_so(run: Run, asked: dict[str, Any]) -> None:
    for args, is_open in ((("--host", "0.0.0.0"), True), (("--host", "0.0.0.0", "--api-key", "k"), False), ((), False)):
        assert ("anybody who reaches" in run("serve", "some/model", "--port", "0", *args)[2]) is is_open


def test_command_lines_of_other_servers_work(run: Run, asked: dict[str, Any]) -> None:
    code, _, err = run(
        "serve", "some/model", "--port", "0", "--trust-remote-code", "--reasoning-parser", "ernie-45-vl-thinking",
        "--tool-call-parser", "ernie-45-vl-thinking", "--enable-auto-tool-choice", "--enable-chunked-prefill",
        "--enable-prefix-caching",
        "--quantization", "wint4",
    )  # fmt: skip
    assert (code, asked["options"].dtype) == (0, "int4")
    for flag in ("--trust-remote-code", "--enable-auto-tool-choice", "--enable-chunked-prefill"):
        assert f"{flag} is not needed" in err


@pytest.mark.parametrize(
    ("given", "dtype"),
    [("bfloat16", "bf16"), ("bf16", "bf16"), ("float32", "fp32"), ("float", "fp32"), ("auto", "auto")],
)
def test_dtypes_go_by_their_names_elsewhere_too(run: Run, asked: dict[str, Any], given: str, dtype: str) -> None:
    assert run("serve", "some/model", "--port", "0", "--dtype", given)[0] == 0
    assert asked["options"].dtype == dtype


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (("--dtype", "float16"), "Use bf16"),
        (("--dtype", "fp8"), "is not one of auto, fp32"),
        (("--reasoning-parser", "qwen3"), "Leave this option out: the parser is chosen from the model"),
        (("--tool-call-parser", "hermes"), "Leave this option out: the parser is chosen from the model"),
        (("--quantization", "fp8"), "Use wint8 or wint4"),
        (("--quantization", "wint4", "--dtype", "int8"), "it asks for int4, and --dtype for int8"),
        (("--gpu-memory-utilization", "0.9"), "--max-model-len"),
        (("--tensor-parallel-size", "2"), "one process"),
        (("--mm-processor-kwargs", "{fps: 1}"), "Quote it for the shell"),
        (("--mm-processor-kwargs", "[1]"), "is not a JSON object"),
        (("--mm-processor-kwargs", '{"fpss": 1}'), "Did you mean 'fps'?"),
        (("--limit-mm-per-prompt", '{"audio": 1}'), "Use image and video"),
        (("--limit-mm-per-prompt", '{"image": -1}'), "0 or more"),
        (("--allowed-local-media-path", "/no/such/folder"), "Create it, or correct the path"),
        (("--host", "203.0.113.1"), "an address of this machine"),
        (("--api-key", ""), "Choose another one"),
        (("--tools", "weather"), "there is no tool 'weather'"),
        (("--tools", "knowledge_search"), "needs an index"),
        (("--tools", "zoom", "--index", "x.index"), "has nothing to act on"),
        (("--replicas", "0"), "greater than or equal to 1"),
        (("--max-num-seqs", "99", "--max-num-batched-tokens", "9"), "lower the first or raise the second"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    run: Run, asked: dict[str, Any], args: tuple[str, ...], advice: str
) -> None:
    code, _, err = run("serve", "some/model", "--port", "0", *args)
    assert code == 2
    assert advice in " ".join(err.replace("│", " ").split())
    assert "name" not in asked


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], OpenAI]]:
    """A real `tusi serve random` with the options in request.param, and a client for it."""
    command = [sys.executable, "-c", "import sys; from tusi.cli.main import main; sys.exit(main())"]
    command += ["serve", "random", "--port", "0", "--max-model-len", "256", "--dtype", "fp32", *request.param]
    environment = {**os.environ, "TUSI_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if line.startswith("serving random at "))
            yield process, OpenAI(base_url=line.split()[-1], api_key="none", max_retries=0)
        finally:
            process.kill()


@pytest.mark.parametrize("started", [(), ("--replicas", "1")], indirect=True, ids=["one process", "replicas"])
def test_it_answers_and_stops_when_told(started: tuple[subprocess.Popen[str], OpenAI]) -> None:
    process, client = started
    ask = {"model": "random", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 40}
    stream = client.chat.completions.create(**ask, stream=True, extra_body={"ignore_eos": True})
    next(stream)
    process.send_signal(signal.SIGTERM)
    reasons = [chunk.choices[0].finish_reason for chunk in stream]
    assert reasons[-1] in ("length", "stop")
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("started", [("--replicas", "2")], indirect=True)
def test_replicas_are_killed_and_come_back(started: tuple[subprocess.Popen[str], OpenAI]) -> None:
    process, client = started
    before = children(process.pid)
    assert len(before) == 2
    ask = {"model": "random", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}
    assert client.chat.completions.create(**ask).usage is not None
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(children(process.pid)) == 2 and children(process.pid) != before)
    assert client.with_options(max_retries=5).chat.completions.create(**ask).usage is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not [pid for pid in before if Path(f"/proc/{pid}").exists()]


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}
