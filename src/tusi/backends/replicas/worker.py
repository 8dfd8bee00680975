"""The engine process: loads a backend, does what the front process asks, and ends when that one ends.

Its one argument is the descriptor of one end of a socket pair. Threads: one reads what is asked, one writes what is
answered (all that waits in one message, so that a step's tokens cost one), some prepare prompts, and the backend's own.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from tusi.backends.outbox import Item, pump
from tusi.backends.protocol import Backend
from tusi.backends.replicas.messages import (
    Abort,
    Begin,
    Call,
    FromReplica,
    Items,
    Log,
    NotReady,
    PackedItem,
    Ping,
    Pong,
    Ready,
    ReplicaFault,
    Reply,
    Stop,
    Submit,
    pack,
)
from tusi.core.errors import EngineError, TusiError

logger = logging.getLogger(__name__)


class Worker:
    """One process's half of the conversation."""

    def __init__(self, connection: Connection, begin: Begin) -> None:
        self._connection = connection
        self._begin = begin
        self._backend: Backend | None = None
        self._outgoing: queue.SimpleQueue[FromReplica | tuple[int, PackedItem]] = queue.SimpleQueue()
        self._streams: dict[int, _Running] = {}
        self._executor = ThreadPoolExecutor(begin.num_workers, thread_name_prefix="tusi-replica")

    def run(self) -> None:
        """Never returns: ends the process."""
        logging.getLogger("tusi").addHandler(_LogHandler(self._outgoing.put))
        threading.Thread(target=self._write, name="tusi-replica-writer", daemon=True).start()
        threading.Thread(target=self._load, name="tusi-replica-loader", daemon=True).start()
        try:
            while True:
                self._do(pickle.loads(self._connection.recv_bytes()))  # noqa: S301  # see messages
        except (EOFError, OSError):
            os._exit(0)  # the front process is gone: nobody waits for anything

    def _load(self) -> None:
        try:
            backend = self._begin.load()
        except BaseException as error:  # noqa: BLE001  # raised again in the front process
            self._outgoing.put(NotReady(_portable(error)))
            return
        self._backend = backend
        self._outgoing.put(
            Ready(
                model=backend.model,
                default_sampling_params=backend.default_sampling_params,
                max_model_len=getattr(backend, "max_model_len", None),
                max_num_seqs=getattr(backend, "max_num_seqs", None),
                image_max_pixels=getattr(backend, "image_max_pixels", None),
                precision=getattr(backend, "precision", None),
                has_text=hasattr(backend, "stream_text"),
                has_stats=hasattr(backend, "stats"),
            )
        )

    def _do(self, message: object) -> None:
        match message:
            case Submit():
                self._streams[message.number] = _Running()
                self._executor.submit(self._stream, message)
            case Abort():
                self._abort(message)
            case Call():
                self._executor.submit(self._call, message)
            case Ping():
                self._outgoing.put(Pong(self._death()))
            case Stop():
                os._exit(0)

    def _stream(self, message: Submit) -> None:
        number = message.number
        running = self._streams[number]
        try:
            stream = getattr(self._backend, message.method)(*message.args, **message.kwargs)
        except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
            del self._streams[number]
            self._outgoing.put(Reply(number, error=_portable(error)))
            return
        running.stream = stream
        self._outgoing.put(Reply(number))

        def put(item: Item) -> None:
            if not running.is_closed:
                self._outgoing.put((number, pack(_portable(item) if isinstance(item, BaseException) else item)))
            if item is None or isinstance(item, BaseException):
                self._streams.pop(number, None)

        pump(stream, put, lambda: running.is_closed)
        if running.is_closed:  # told so while the prompt was being prepared
            self._close(number)

    def _abort(self, message: Abort) -> None:
        running = self._streams.get(message.number)
        if running is None or self._backend is None:
            return
        running.is_closed = message.is_closed
        self._backend.abort(message.request_id)
        if message.is_closed:
            self._close(message.number)

    def _close(self, number: int) -> None:
        running = self._streams.pop(number, None)
        if running is not None and running.stream is not None and hasattr(running.stream, "forward"):
            running.stream.close()

    def _call(self, message: Call) -> None:
        try:
            value = getattr(self._backend, message.method)(*message.args)
        except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
            self._outgoing.put(Reply(message.number, error=_portable(error)))
            return
        self._outgoing.put(Reply(message.number, value))

    def _death(self) -> str | None:
        check = getattr(self._backend, "check_alive", None)
        try:
            if check is not None:
                check()
        except EngineError as error:
            return str(error)
        return None

    def _write(self) -> None:
        try:
            while True:
                waiting = [self._outgoing.get()]
                while not self._outgoing.empty():
                    waiting.append(self._outgoing.get())
                for message in _in_batches(waiting):
                    self._connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:
            os._exit(0)  # as in run
        except BaseException:
            logger.exception("a message could not be written")
            os._exit(1)


class _Running:
    """A stream that is being opened or read."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.is_closed = False


class _LogHandler(logging.Handler):
    """Sends log lines to the front process, which knows where they belong."""

    def __init__(self, send: Callable[[Log], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(Log(record.name, record.levelno, self.format(record)))


def _in_batches(waiting: list[FromReplica | tuple[int, PackedItem]]) -> list[FromReplica]:
    """Neighbouring items together in one message; the order stays."""
    messages: list[FromReplica] = []
    for one in waiting:
        if not isinstance(one, tuple):
            messages.append(one)
        elif messages and isinstance(messages[-1], Items):
            messages[-1].items.append(one)
        else:
            messages.append(Items([one]))
    return messages


def _portable(error: BaseException) -> BaseException:
    """An error as it can be sent: ours as they are; others are logged here and become an EngineError."""
    if isinstance(error, TusiError):
        error.__cause__ = error.__context__ = error.__traceback__ = None
        return error
    logger.error("a request failed unexpectedly", exc_info=error)
    return ReplicaFault(f"an engine process failed at this request through a fault of its own ({type(error).__name__})")


def main() -> None:
    """Take the other end of the front process's socket pair, and serve it."""
    # A terminal's Ctrl-C and a service manager's SIGTERM go to every process; the front one decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    connection = Connection(int(sys.argv[1]))
    begin = pickle.loads(connection.recv_bytes())  # noqa: S301  # see messages
    assert isinstance(begin, Begin)
    root = logging.getLogger("tusi")
    root.setLevel(begin.log_level)
    root.propagate = False
    Worker(connection, begin).run()
