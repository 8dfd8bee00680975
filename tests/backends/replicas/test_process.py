"""EngineProcess: what happens at its end."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection

import pytest

from tests.fixtures.http_server import wait_until
from tests.fixtures.talking_backend import TalkingBackend
from tusi.backends.replicas.process import EngineProcess


def test_the_socket_is_not_closed_under_a_message_that_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(threading.enumerate())
    process = EngineProcess(0, TalkingBackend, num_threads=1, num_workers=1)
    process.facts.result(30)
    reader = next(thread for thread in set(threading.enumerate()) - others if thread.name.endswith("-reader"))
    is_writing, may_write = threading.Event(), threading.Event()
    closed_when_written: list[bool] = []

    def send_bytes(connection: Connection, data: bytes) -> None:
        is_writing.set()
        may_write.wait(30)
        closed_when_written.append(connection.closed)
        raise BrokenPipeError

    monkeypatch.setattr(Connection, "send_bytes", send_bytes)
    process.ping()
    assert is_writing.wait(30)
    process.kill()
    wait_until(process.is_dead.is_set)
    reader.join(0.5)  # long enough to close it, were it not to wait for the writer
    may_write.set()
    reader.join(30)
    assert closed_when_written == [False]
    assert not reader.is_alive()
