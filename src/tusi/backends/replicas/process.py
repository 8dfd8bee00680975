"""The front process's half of one engine process: starts it, asks, and tells everybody who waits when it is gone.

One life only: a process that has died is not started again (`supervisor` makes another one). Every public method may be
called from any thread.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from tusi.backends.outbox import Item, Outbox, Sink, Wants, always
from tusi.backends.protocol import Backend, ChatDelta
from tusi.backends.replicas.messages import (
    Abort,
    Begin,
    Call,
    Items,
    Log,
    NotReady,
    Ping,
    Pong,
    Ready,
    Reply,
    Stop,
    Submit,
    ToReplica,
    unpack,
)
from tusi.core.env import child_environment
from tusi.core.errors import ConfigError, ReplicaLost

logger = logging.getLogger(__name__)
_START = "from tusi.backends.replicas.worker import main; main()"


class EngineProcess:
    """A process with a backend.

    index: which replica it is, for logs and errors. load: makes the backend there; it must pickle.
    num_threads: of its native kernels. num_workers: prompts that it prepares at once.
    """

    def __init__(self, index: int, load: Callable[[], Backend], *, num_threads: int, num_workers: int) -> None:
        self.index = index
        self.facts: Future[Ready] = Future()
        self.last_heard = time.monotonic()
        self.is_dead = threading.Event()
        self._numbers = itertools.count()
        self._calls: dict[int, Future[Any]] = {}
        self._streams: dict[int, _Route] = {}
        self._lock = threading.Lock()
        # A queue and a thread of its own, so that an abort from the event loop never waits behind a large request.
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._popen, self._connection = _spawn(num_threads)
        level = logging.getLogger("tusi").getEffectiveLevel()
        self._send(Begin(index=index, load=load, num_workers=num_workers, log_level=level))
        self._writer = threading.Thread(target=self._write, name=f"tusi-replica-{index}-writer", daemon=True)
        self._writer.start()
        threading.Thread(target=self._read, name=f"tusi-replica-{index}-reader", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._popen.pid

    @property
    def load(self) -> int:
        """Completions that it owes."""
        return sum(route.weight for route in list(self._streams.values()))

    def stream(
        self,
        method: Literal["stream", "stream_text"],
        *args: Any,
        request_id: str,
        weight: int,
        options: dict[str, Any],
    ) -> ReplicaStream:
        """Open a stream there. Raises what the backend refuses it with, and ReplicaLost."""
        route = _Route(next(self._numbers), request_id, weight)
        answer: Future[None] = Future()
        with self._lock:
            self._check_alive()
            self._streams[route.number] = route
            self._calls[route.number] = answer
        try:
            self._send(Submit(route.number, method, args, options))
            answer.result()
        except BaseException:
            self._streams.pop(route.number, None)
            raise
        return ReplicaStream(self, route)

    def call(self, method: Literal["embed_image", "stats"], *args: Any, timeout: float | None = None) -> Any:
        """Call a method of the backend there. Raises what that raises, ReplicaLost, and TimeoutError."""
        number = next(self._numbers)
        answer: Future[Any] = Future()
        with self._lock:
            self._check_alive()
            self._calls[number] = answer
        self._send(Call(number, method, args))
        try:
            return answer.result(timeout)
        finally:
            self._calls.pop(number, None)

    def abort(self, number: int, request_id: str, *, is_closed: bool) -> None:
        """End a stream, some time soon; never waits. is_closed: nothing more of it is wanted."""
        if is_closed:
            self._streams.pop(number, None)
        self._send(Abort(number, request_id, is_closed))

    def ping(self) -> None:
        """Ask for a sign of life; last_heard is when the last one came."""
        self._send(Ping())

    def stop(self, *, patience: float = 5.0) -> None:
        """End the process; what it owes ends with ReplicaLost. Kills it after `patience` seconds."""
        self._send(Stop())
        try:
            self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process the hard way."""
        self._popen.kill()
        self._popen.wait()

    def _send(self, message: ToReplica | Begin) -> None:
        self._outgoing.put(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def _write(self) -> None:
        try:
            while (data := self._outgoing.get()) is not None:
                self._connection.send_bytes(data)
        except OSError:
            return  # the reader sees the same end, and tells everybody

    def _read(self) -> None:
        try:
            while True:
                self._take(pickle.loads(self._connection.recv_bytes()))  # noqa: S301  # see messages
        except (EOFError, OSError):
            pass
        except Exception:
            logger.exception("replica %d said what cannot be understood", self.index)
            self._popen.kill()
        self._bury()

    def _take(self, message: object) -> None:
        self.last_heard = time.monotonic()
        match message:
            case Items(items):
                for number, item in items:
                    self._give(number, unpack(item))
            case Reply(number, value, error):
                answer = self._calls.pop(number, None)
                if answer is not None:
                    answer.set_result(value) if error is None else answer.set_exception(error)
            case Pong(death):
                if death is not None:
                    logger.error("replica %d: its engine is dead (%s)", self.index, death)
                    self._popen.kill()
            case Log(name, level, text):
                logging.getLogger(name).log(level, "[replica %d] %s", self.index, text)
            case Ready():
                self.facts.set_result(message)
            case NotReady(error):
                self.facts.set_exception(error)

    def _give(self, number: int, item: Item) -> None:
        route = self._streams.get(number)
        if route is None:
            return  # closed in the meantime
        if not isinstance(item, ChatDelta):
            self._streams.pop(number, None)
            route.is_over = True
        route.outbox.put(item)

    def _bury(self) -> None:
        """Tell everybody who waits."""
        code = self._popen.wait()
        with self._lock:
            self.is_dead.set()
        how = f"signal {-code}" if code < 0 else f"code {code}"
        error = ReplicaLost(
            f"the engine process that ran this request ended ({how}). Send the request again: other processes go on."
        )
        for answer in [*self._calls.values(), self.facts]:
            if not answer.done():
                answer.set_exception(error)
        for route in list(self._streams.values()):
            route.is_over = True
            route.outbox.put(error)
        self._calls.clear()
        self._streams.clear()
        self._outgoing.put(None)
        # Its number may belong to the next process's socket as soon as it is closed: a late ping would arrive there.
        self._writer.join()
        self._connection.close()

    def _check_alive(self) -> None:
        if self.is_dead.is_set():
            raise ReplicaLost("the engine process chosen for this request has just ended. Send the request again.")


@dataclass(slots=True, eq=False)
class _Route:
    """Where the items of a stream go; kept while any may come. weight: its completions."""

    number: int
    request_id: str
    weight: int
    outbox: Outbox = field(default_factory=Outbox)
    is_over: bool = False


class ReplicaStream:
    """A DeltaStream, and a PushedStream, of a request that runs in another process.

    Closing it, or dropping the last reference to it, aborts what still runs.
    """

    def __init__(self, process: EngineProcess, route: _Route) -> None:
        self._process = process
        self._route = route
        self._is_read = False

    def __iter__(self) -> ReplicaStream:
        return self

    def __next__(self) -> ChatDelta:
        if self._is_read:
            raise StopIteration
        item = self._route.outbox.get()
        if isinstance(item, ChatDelta):
            return item
        self._is_read = True
        if isinstance(item, BaseException):
            raise item
        raise StopIteration

    def forward(self, sink: Sink, wants: Wants = always) -> None:
        """See outbox.PushedStream. The sink is called on the thread that reads what the process says."""
        self._route.outbox.forward(sink)

    def abort(self) -> None:
        """End the request early; how it ended is still to be read."""
        if not self._route.is_over:
            self._process.abort(self._route.number, self._route.request_id, is_closed=False)

    def close(self) -> None:
        """Abort the request if it still runs; nothing more is read."""
        self._is_read = True
        if not self._route.is_over:
            self._route.is_over = True
            self._process.abort(self._route.number, self._route.request_id, is_closed=True)

    def __del__(self) -> None:
        self.close()


def _spawn(num_threads: int) -> tuple[subprocess.Popen[bytes], Connection]:
    if os.name != "posix":
        raise ConfigError(
            "replicas hand sockets to their processes, which this system cannot do. Leave --replicas out."
        )
    ours, theirs = socket.socketpair()
    # The same code must be found there, wherever this process found it; -P keeps the working directory out of it.
    path = os.pathsep.join(part for part in sys.path if part)
    environment = child_environment(PYTHONPATH=path, TUSI_NUM_THREADS=str(num_threads))
    with theirs:
        popen = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    return popen, Connection(ours.detach())
