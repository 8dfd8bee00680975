"""Batches made ahead in other processes, so that drawing pictures costs a training step nothing.

A source is a pure function of the index, so it may be asked anywhere and in any order: the sequence of batches, and
with it a resumed run, is the same with and without this.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Generic, Protocol

import torch

from tusi.core.errors import EngineError
from tusi.train.objectives import BatchT, BatchT_co

_source: Any = None
"""The source of a worker process, made when the process starts."""


class BatchSource(Protocol[BatchT_co]):
    """Where batches come from; a pure function of the index, so that a resumed run sees what the first would have."""

    def batch(self, index: int) -> BatchT_co:
        """Batch number index."""
        ...


class PrefetchedSource(Generic[BatchT]):
    """A source whose next batches are made by `num_workers` processes while the last one is trained on.

    make_source: a picklable function that makes the source. last: no batch from this index on is made ahead.
    A context manager: leaving it ends the processes.
    """

    def __init__(self, make_source: Callable[[], BatchSource[BatchT]], *, num_workers: int, last: int) -> None:
        self._last = last
        self._lookahead = 2 * num_workers
        self._pending: dict[int, Future[BatchT]] = {}
        # A fork of a process with threads may hang; a fresh interpreter does not.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(num_workers, context, _start_worker, (make_source,))

    def batch(self, index: int) -> BatchT:
        """Batch number index. Raises what making it raises, EngineError if a worker process died."""
        wanted = range(index, max(index + 1, min(index + self._lookahead, self._last)))
        for skipped in set(self._pending) - set(wanted):
            self._pending.pop(skipped).cancel()
        try:
            for number in wanted:
                if number not in self._pending:
                    self._pending[number] = self._pool.submit(_batch, number)
            return self._pending.pop(index).result()
        except BrokenProcessPool as error:
            raise EngineError(
                "a process that makes batches died (out of memory, or killed). Run the recipe again to go on from its "
                "last state; with num_workers=0 batches are made in the training process."
            ) from error

    def __enter__(self) -> PrefetchedSource[BatchT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class PreparedSource(Generic[BatchT]):
    """A source whose next batches are sent to a GPU by a thread while the last one is trained on.

    prepare: what is to be done with a batch of `source`, in the thread. last: no batch from this index on is asked for
    ahead. A context manager: leaving it ends the thread.
    """

    AHEAD = 2

    def __init__(self, source: BatchSource[Any], prepare: Callable[[Any], BatchT], *, last: int) -> None:
        self._source = source
        self._prepare = prepare
        self._last = last
        self._pending: dict[int, Future[BatchT]] = {}
        self._thread = ThreadPoolExecutor(1)

    def batch(self, index: int) -> BatchT:
        """Batch number index, prepared. Raises what making it raises."""
        wanted = range(index, max(index + 1, min(index + self.AHEAD + 1, self._last)))
        for skipped in set(self._pending) - set(wanted):
            self._pending.pop(skipped).cancel()
        for number in wanted:
            if number not in self._pending:
                self._pending[number] = self._thread.submit(self._made, number)
        return self._pending.pop(index).result()

    def _made(self, index: int) -> BatchT:
        return self._prepare(self._source.batch(index))

    def __enter__(self) -> PreparedSource[BatchT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _start_worker(make_source: Callable[[], Any]) -> None:
    # Ctrl-C reaches the whole group of processes; the trainer decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    global _source
    _source = make_source()


def _end_with_parent() -> None:
    """A trainer that was killed can stop nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def _batch(index: int) -> Any:
    return _source.batch(index)
