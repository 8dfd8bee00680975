"""Runs batches, the oldest first, several lines of it at once, in threads of its own and behind everybody else.

Of all servers that share a state folder one runs batches: who holds the lock file. The system lets go of it when a
process dies, however it dies; another server, or the next one, then goes on where the last finished line is.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from tusi.core.errors import TusiError
from tusi.server.batches.lines import Endpoint, InputFile, Interrupted, answer_line, read_input
from tusi.server.generation import Job
from tusi.server.state.batches import Batch, BatchStore
from tusi.server.state.database import StateFolder
from tusi.server.state.files import FileStore

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_TROUBLE_SECONDS = 30.0
PRIORITY = 10
"""Of a batch's requests: after those that somebody waits for."""


class BatchRunner:
    """The thread that runs batches. concurrency: lines at once. is_lost: whether the engine is dead for good."""

    def __init__(
        self,
        state: StateFolder,
        batches: BatchStore,
        files: FileStore,
        endpoints: Mapping[str, Endpoint],
        *,
        concurrency: int,
        is_lost: Callable[[], bool],
    ) -> None:
        self._batches, self._files, self._endpoints = batches, files, endpoints
        self._concurrency, self._is_lost = concurrency, is_lost
        self._lock = FileLock(state.path / "batches.lock", thread_local=False)
        self._wake = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="tusi-batches", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier server left."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new to look at."""
        self._wake.set()

    def close(self) -> None:
        """Stop. What runs is aborted and will be run again; what is finished is kept."""
        self._is_closed = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_closed:
                pause = POLL_SECONDS
                try:
                    if self._has_lock():
                        self._run_all()
                except (sqlite3.Error, OSError):
                    logger.exception("batches cannot be run just now; trying again in %g s", _TROUBLE_SECONDS)
                    pause = _TROUBLE_SECONDS
                self._wake.wait(pause)
                self._wake.clear()
        finally:
            self._lock.release(force=True)

    def _has_lock(self) -> bool:
        if self._lock.is_locked:
            return True
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _run_all(self) -> None:
        while not self._is_closed and not self._is_lost():
            batch = self._batches.next_running()
            if batch is None:
                return
            try:
                _Run(self, batch).go()
            except (sqlite3.Error, OSError):
                raise  # such as a full disk: what is finished is kept, and it goes on once there is room
            except Exception as error:
                logger.exception("batch %s failed", batch.id)
                told = str(error) if isinstance(error, TusiError) else "the server failed at this batch; see its log."
                fault = {"code": "server_error", "message": told, "param": None, "line": None}
                self._batches.fail(batch.id, [fault])


class _Run:
    """One batch on its way to its end."""

    def __init__(self, runner: BatchRunner, batch: Batch) -> None:
        self._runner, self._batch = runner, batch
        self._batches, self._files = runner._batches, runner._files
        self._jobs: dict[int, Job] = {}
        self._aborted: set[int] = set()
        self._jobs_lock = threading.Lock()
        self._is_stopped = False
        self._looked_at = 0.0

    def go(self) -> None:
        """Validate it, run its lines, write its files. Returns early if the server is to end, or the engine is dead."""
        batch = self._batch
        given = read_input(self._files.path(self._files.get(batch.input_file_id).id), batch.endpoint)
        if given.errors:
            self._batches.fail(batch.id, given.errors)
            return
        self._batches.move(batch.id, of=("validating",), to="in_progress", total=len(given.offsets))
        if self._status() == "in_progress" and not self._run_lines(given):
            return
        self._end(given)

    def _run_lines(self, given: InputFile) -> bool:
        """False if the batch is to be gone on with another time."""
        finished = self._batches.finished_lines(self._batch.id)
        waiting = iter([number for number in range(len(given.offsets)) if number not in finished])
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._runner._concurrency, thread_name_prefix="tusi-batch") as pool:
            while True:
                while not self._must_stop() and len(running) < self._runner._concurrency:
                    number = next(waiting, None)
                    if number is None:
                        break
                    running.add(pool.submit(self._run_line, given, number))
                if self._must_stop():
                    self._abort_all()
                if not running:
                    break
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        return not self._runner._is_closed and not self._runner._is_lost()

    def _run_line(self, given: InputFile, number: int) -> None:
        line = given.line(number)

        def started(job: Job) -> None:
            with self._jobs_lock:
                self._jobs[number] = job

        try:
            answer = answer_line(
                self._runner._endpoints[self._batch.endpoint],
                line["body"],
                started=started,
                must_stop=self._must_stop,
                is_aborted=lambda: number in self._aborted,
                is_lost=self._runner._is_lost,
            )
        except Interrupted:
            return
        finally:
            with self._jobs_lock:
                self._jobs.pop(number, None)
        self._batches.finish_line(self._batch.id, number, answer.line(line["custom_id"]), is_error=answer.status != 200)

    def _must_stop(self) -> bool:
        """Whether lines are to end: the server ends, or the batch was cancelled or has expired."""
        if not self._is_stopped:
            now = time.monotonic()
            if now - self._looked_at > 0.2:
                self._looked_at = now
                batch = self._batches.get(self._batch.id)
                self._is_stopped = time.time() >= batch.expires_at or batch.status != "in_progress"
        return self._is_stopped or self._runner._is_closed

    def _abort_all(self) -> None:
        """Again and again: a request that is being prepared is known to the backend only later."""
        with self._jobs_lock:
            self._aborted |= self._jobs.keys()
            jobs = [*self._jobs.values()]
        for job in jobs:
            job.abort()

    def _status(self) -> str:
        return self._batches.get(self._batch.id).status

    def _end(self, given: InputFile) -> None:
        batch_id = self._batch.id
        unfinished = sorted(set(range(len(given.offsets))) - self._batches.finished_lines(batch_id))
        ends_as = "completed"
        if self._status() == "cancelling":
            ends_as = "cancelled"
        elif unfinished:
            ends_as = "expired"
            for number in unfinished:
                self._batches.finish_line(batch_id, number, _expired(given.line(number)["custom_id"]), is_error=True)
        self._batches.move(batch_id, of=("in_progress",), to="finalizing")
        output, errors = (self._write(kind, is_error=kind == "error") for kind in ("output", "error"))
        self._batches.move(
            batch_id, of=("finalizing", "cancelling"), to=ends_as, output_file_id=output, error_file_id=errors
        )
        logger.info("batch %s %s", batch_id, ends_as)

    def _write(self, kind: str, *, is_error: bool) -> str | None:
        """A file of results; the same one if it is written again. None if there are none."""
        lines = self._batches.results(self._batch.id, is_error=is_error)
        first = next(lines, None)
        if first is None:
            return None
        file_id = f"file-{self._batch.id.removeprefix('batch_')}-{kind}"

        def write_to(target: BinaryIO) -> None:
            target.write(first.encode() + b"\n")
            for line in lines:
                target.write(line.encode() + b"\n")

        self._files.write(file_id, write_to)
        self._files.register(
            file_id,
            filename=f"{self._batch.id}_{kind}.jsonl",
            purpose="batch_output",
            lifetime=self._batch.output_lifetime,
        )
        return file_id


def _expired(custom_id: str) -> dict[str, Any]:
    error = {"code": "batch_expired", "message": "the batch's completion window ended before this line was run."}
    return {"id": None, "custom_id": custom_id, "response": None, "error": error}
