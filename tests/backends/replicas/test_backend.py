"""ReplicaBackend with real processes: what arrives, what is lost with a process and what is not."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.fixtures.http_server import wait_until
from tests.fixtures.talking_backend import TalkingBackend, said
from tusi.backends.local.backend import LocalBackend
from tusi.backends.outbox import Item
from tusi.backends.protocol import ChatDelta
from tusi.backends.replicas.backend import ReplicaBackend, share_threads
from tusi.backends.replicas.messages import ReplicaFault, pack, unpack
from tusi.backends.replicas.supervisor import Patience
from tusi.core.errors import CheckpointError, ConfigError, EngineError, EngineRestarting, ReplicaLost, RequestError
from tusi.engine.sampling_params import SamplingParams

NUMBERS = itertools.count()
QUICK = Patience(ping=0.05, silence=0.5, death=1.0, first_wait=0.05, longest_wait=0.2)


@pytest.fixture(scope="module")
def two() -> Iterator[ReplicaBackend]:
    backend = ReplicaBackend(TalkingBackend, 2, num_threads=3, patience=QUICK)
    yield backend
    backend.close()


def pid_of(backend: ReplicaBackend) -> int:
    """Of the process that answers a question which none of them has heard before."""
    return int(backend.generate(said(f"pid {next(NUMBERS)}")).choices[0].content)


def wait_for_all(backend: ReplicaBackend) -> None:
    wait_until(lambda: all(replica.state == "ready" for replica in backend.status()))


def test_what_the_processes_tell_of_themselves(two: ReplicaBackend) -> None:
    assert (two.model, two.max_model_len, two.default_sampling_params) == (
        "talking", 512, SamplingParams(temperature=0.25)
    )  # fmt: skip
    assert (two.has_text, two.image_max_pixels) == (False, None)


def test_whole_answers_and_streams(two: ReplicaBackend) -> None:
    result = two.generate(said("count 5"))
    assert result.choices[0].content == "0 1 2 3 4 "
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, 5)
    assert [delta.content for delta in two.stream(said("count 3"))] == ["0 ", "1 ", "2 ", ""]


def test_requests_are_spread_and_threads_shared(two: ReplicaBackend) -> None:
    wait_for_all(two)
    streams = [two.stream(said(f"count 300 {n}")) for n in range(4)]
    assert [replica.load for replica in two.status()] == [2, 2]
    for stream in streams:
        stream.close()
    assert {pid_of(two) for _ in range(4)} == {replica.pid for replica in two.status()}
    assert {two.generate(said(f"threads {n}")).choices[0].content for n in range(4)} == {"1", "2"}
    assert share_threads(1, 3) == [1, 1, 1]


def test_errors_come_up_as_they_are(two: ReplicaBackend, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RequestError, match="Ask for something else") as caught:
        two.stream(said("refuse"))
    assert (caught.value.param, caught.value.code) == ("messages[0]", "nope")
    with caplog.at_level(logging.INFO, "tusi"), pytest.raises(ReplicaFault, match="ZeroDivisionError"):
        two.stream(said("fault"))
    wait_until(lambda: "secret detail" in caplog.text)
    assert "[replica " in caplog.text
    assert [replica.load for replica in two.status()] == [0, 0]


def test_an_abort_says_so_and_a_close_is_silent(two: ReplicaBackend) -> None:
    stream = two.stream(said("count 3000", request_id="mine"))
    next(stream)
    two.abort("mine")
    two.abort("nobody's")
    assert list(stream)[-1].finish_reason == "abort"
    dropped = two.stream(said("count 3000"))
    next(dropped)
    del dropped
    wait_until(lambda: not any(replica.load for replica in two.status()))


def test_streams_push(two: ReplicaBackend) -> None:
    items: list[Item] = []
    stream = two.stream(said("count 4"))  # kept: dropping it would abort it
    stream.forward(items.append)
    wait_until(lambda: items and items[-1] is None)
    assert "".join(item.content for item in items if isinstance(item, ChatDelta)) == "0 1 2 3 "


def test_a_killed_process_loses_its_own_requests_only(two: ReplicaBackend) -> None:
    wait_for_all(two)
    restarts = sum(replica.num_restarts for replica in two.status())
    streams = [two.stream(said(f"count 100 {n}")) for n in range(4)]
    victim = two.status()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    ends: list[str] = []
    for stream in streams:
        try:
            ends.append(list(stream)[-1].finish_reason or "")
        except ReplicaLost as error:
            ends.append(str(error)[:50])
    lost = "the engine process that ran this request ended (signal 9)"[:50]
    assert sorted(ends) == ["stop", "stop", lost, lost]
    assert two.generate(said("count 2")).choices[0].content == "0 1 "
    wait_for_all(two)
    assert sum(replica.num_restarts for replica in two.status()) == restarts + 1
    assert len({pid_of(two) for _ in range(4)} - {victim.pid}) == 2


def test_a_request_that_kills_its_process_is_not_tried_on_the_next(two: ReplicaBackend) -> None:
    wait_for_all(two)
    with pytest.raises(ReplicaLost):
        two.generate(said("die"))
    assert two.generate(said("count 1")).choices[0].content == "0 "
    wait_for_all(two)


def test_a_process_whose_engine_died_is_replaced(two: ReplicaBackend) -> None:
    wait_for_all(two)
    before = {replica.pid for replica in two.status()}
    with pytest.raises(EngineError):
        two.generate(said("break"))
    wait_until(lambda: len({replica.pid for replica in two.status()} - before) == 1)
    wait_for_all(two)


def test_a_process_that_stands_still_is_passed_over_and_then_killed(two: ReplicaBackend) -> None:
    wait_for_all(two)
    frozen = two.status()[1].pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: two.status()[1].state != "ready")
    assert pid_of(two) != frozen
    two.check_alive()
    wait_for_all(two)
    assert frozen not in {replica.pid for replica in two.status()}


def test_other_methods_are_called_there(two: ReplicaBackend) -> None:
    from tusi.chat.messages import ImagePart

    wait_for_all(two)
    pid, length = two.embed_image(ImagePart("abc"))
    assert (int(pid) in {replica.pid for replica in two.status()}, length) == (True, 3)


def test_nothing_lives_and_then_it_does_again(tmp_path: Path) -> None:
    marker = tmp_path / "broken"
    backend = ReplicaBackend(partial(TalkingBackend, marker), 1, num_threads=1, patience=QUICK)
    try:
        marker.touch()
        with pytest.raises(ReplicaLost):
            backend.generate(said("die"))
        wait_until(lambda: backend.status()[0].num_restarts >= 2)
        with pytest.raises(EngineRestarting, match="Try again") as caught:
            backend.stream(said("pid"))
        assert caught.value.retry_after > 0
        with pytest.raises(EngineError, match="replica 0 is"):
            backend.check_alive()
        marker.unlink()
        wait_until(lambda: backend.status()[0].state == "ready")
        assert pid_of(backend) == backend.status()[0].pid
    finally:
        backend.close()


def test_what_cannot_be_loaded_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(CheckpointError, match="Get another one"):
        ReplicaBackend(partial(TalkingBackend, tmp_path / "broken"), 2, num_threads=1)
    with pytest.raises(ConfigError, match="1 or more"):
        ReplicaBackend(TalkingBackend, 0, num_threads=1)


def test_closing_ends_the_processes_and_what_they_owe() -> None:
    backend = ReplicaBackend(TalkingBackend, 1, num_threads=1)
    pid = backend.status()[0].pid
    assert pid is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(backend.generate, said("count 3000"))
        wait_until(lambda: backend.status()[0].load)
        backend.close()
        backend.close()
        with pytest.raises(ReplicaLost):
            waiting.result(10)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import os, signal\nfrom tests.fixtures.talking_backend import TalkingBackend\n"
        "from tusi.backends.replicas.backend import ReplicaBackend\n"
        "print(ReplicaBackend(TalkingBackend, 1, num_threads=1).status()[0].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    pid = int(done.stdout)

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(is_gone)


def test_a_real_model_answers_the_same(tiny_model: Path) -> None:
    load = partial(LocalBackend.load, str(tiny_model), dtype="fp32", max_model_len=256)
    request = said("Hello?", sampling_params=SamplingParams(max_tokens=20, seed=1, logprobs=1, ignore_eos=True))
    backend = ReplicaBackend(load, 1, num_threads=1)
    try:
        theirs = backend.generate(request)
        stats = backend.stats()[0]
        assert backend.has_text
    finally:
        backend.close()
    with load() as local:
        ours = local.generate(request)
    assert theirs.choices[0].token_ids == ours.choices[0].token_ids
    assert theirs.choices[0].logprobs == ours.choices[0].logprobs
    assert theirs.usage == ours.usage
    assert stats is not None
    assert stats.num_used_blocks == 0 < stats.num_steps


def test_packing_loses_nothing() -> None:
    for delta in (ChatDelta(), ChatDelta(index=2, text="x", token_ids=(1, 2), finish_reason="stop", stop_reason=5)):
        assert unpack(pack(delta)) == delta
    assert pack(ChatDelta(text="x")) == {"text": "x"}
    assert unpack(pack(None)) is None
