"""Keeps one replica alive: starts its process, asks it for signs of life, starts another when it is gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tusi.backends.replicas.messages import Ready
from tusi.backends.replicas.process import EngineProcess
from tusi.core.errors import TusiError

logger = logging.getLogger(__name__)

State = Literal["starting", "ready", "unresponsive", "waiting", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds. ping: between two questions. silence: without a sign of life for so long, it gets no new requests;
    death: for so long, it is killed. first_wait, longest_wait: before a dead one is started again; doubled each time,
    and back to the first once one has lived for longest_wait.
    """

    ping: float = 1.0
    silence: float = 10.0
    death: float = 60.0
    first_wait: float = 1.0
    longest_wait: float = 60.0


class Replica:
    """One replica over all its lives. on_death: called after each, on the supervisor's thread."""

    def __init__(
        self, index: int, start: Callable[[], EngineProcess], patience: Patience, on_death: Callable[[int], None]
    ) -> None:
        self.index = index
        self.num_restarts = 0
        self._start = start
        self._patience = patience
        self._on_death = on_death
        self._stopping = threading.Event()
        self._process: EngineProcess | None = None
        self._is_loaded = False
        self._thread = threading.Thread(target=self._supervise, name=f"tusi-replica-{index}", daemon=True)

    def begin(self) -> Ready:
        """Start its first process, and watch it from then on. Raises what its backend's loading raises."""
        self._process = process = self._start()
        facts = self._await_load(process)
        self._thread.start()
        return facts

    @property
    def state(self) -> State:
        """What it is doing just now."""
        process = self._process
        if self._stopping.is_set():
            return "stopped"
        if process is None or process.is_dead.is_set():
            return "waiting"
        if not self._is_loaded:
            return "starting"
        silent = time.monotonic() - process.last_heard > self._patience.silence
        return "unresponsive" if silent else "ready"

    @property
    def process(self) -> EngineProcess | None:
        """The process, if it takes requests."""
        return self._process if self.state == "ready" else None

    @property
    def pid(self) -> int | None:
        """Of its process, whatever state that is in."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End it for good."""
        self._stopping.set()
        if self._process is not None:
            self._process.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _await_load(self, process: EngineProcess) -> Ready:
        try:
            facts = process.facts.result()
        except BaseException:
            process.kill()
            raise
        self._is_loaded = True
        return facts

    def _supervise(self) -> None:
        wait = self._patience.first_wait
        while True:
            born = time.monotonic()
            self._watch()
            self._is_loaded = False
            if self._stopping.is_set():
                return
            self._on_death(self.index)
            if time.monotonic() - born > self._patience.longest_wait:
                wait = self._patience.first_wait
            logger.error("replica %d is gone; another process is started in %.1f s", self.index, wait)
            if self._stopping.wait(wait):
                return
            wait = min(2 * wait, self._patience.longest_wait)
            self._restart()

    def _watch(self) -> None:
        """Return once the process is dead, or must end."""
        process = self._process
        if process is None:
            return
        process.last_heard = time.monotonic()
        while not process.is_dead.wait(self._patience.ping):
            process.ping()
            if time.monotonic() - process.last_heard > self._patience.death:
                logger.error("replica %d has not answered for %.0f s; it is killed", self.index, self._patience.death)
                process.kill()
                process.is_dead.wait()

    def _restart(self) -> None:
        self.num_restarts += 1
        started = time.monotonic()
        try:
            self._process = process = self._start()
            if self._stopping.is_set():  # stop() may have seen the one before
                process.stop()
            self._await_load(process)
        except (TusiError, OSError) as error:
            logger.error("replica %d could not be started again: %s", self.index, error)
            return
        except Exception:
            logger.exception("replica %d could not be started again", self.index)
            return
        logger.info("replica %d is back after %.1f s", self.index, time.monotonic() - started)
