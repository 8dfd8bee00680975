"""The one thread that owns the engine. Callers post what they want; it runs between two steps and answers.

In: groups of requests (the n completions of one prompt). Out: each group is told of its tokens, or of the engine's
death, on this thread. After a death every later call is refused with its reason. Knows no text and no model.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol, TypeVar

from tusi.core.errors import EngineError
from tusi.engine.core import EngineCore
from tusi.engine.outputs import EngineOutput
from tusi.engine.request import Request

logger = logging.getLogger(__name__)
T = TypeVar("T")


class RequestGroup(Protocol):
    """Requests that live and die together, and who is told of them. All methods are called on the engine's thread."""

    @property
    def requests(self) -> Sequence[Request]:
        """What is given to the engine."""
        ...

    def start(self, core: EngineCore) -> None:
        """The engine has taken the requests; no step has run yet."""
        ...

    def on_output(self, output: EngineOutput, core: EngineCore) -> None:
        """A token of one of the requests."""
        ...

    def on_abort(self) -> None:
        """The requests were taken out of the engine."""
        ...

    def fail(self, error: EngineError) -> None:
        """The engine is dead or closed: nothing more will come."""
        ...


class EngineThread:
    """Runs an EngineCore, which nobody else may touch. Every public method may be called from any thread."""

    def __init__(self, core: EngineCore) -> None:
        # SimpleQueue.put is reentrant: a garbage collector may call abort() in the middle of another call.
        self._inbox: queue.SimpleQueue[Callable[[EngineCore], None]] = queue.SimpleQueue()
        self._groups: dict[str, RequestGroup] = {}
        self._num_holds = 0
        self._is_closing = False
        self._ending: EngineError | None = None
        # Guards the step from "alive" to "ended", so that no call is posted to a thread that has stopped reading.
        self._lock = threading.Lock()
        # The thread alone holds the core: when it ends, the memory of model and caches can go.
        self._thread = threading.Thread(target=self._run, args=(core,), name="tusi-engine", daemon=True)
        self._thread.start()

    def submit(self, group: RequestGroup) -> None:
        """Give the group's requests to the engine. Raises what the engine refuses them with; none of them runs then."""
        self.call(lambda core: self._add(core, group))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Begin no step while this is open: what is submitted meanwhile begins together. Everybody else waits."""
        self.call(lambda _core: self._count_holds(1))
        try:
            yield
        finally:
            self._inbox.put(lambda _core: self._count_holds(-1))

    def abort(self, group: RequestGroup) -> None:
        """Take the group's requests out, some time soon. Finished ones are not touched."""
        self._inbox.put(lambda core: self._abort(core, group))

    def call(self, function: Callable[[EngineCore], T]) -> T:
        """Run function between two steps and give its result. Raises EngineError if the engine is dead or closed."""
        answer: Future[T] = Future()

        def post(core: EngineCore) -> None:
            try:
                answer.set_result(function(core))
            except Exception as error:  # noqa: BLE001  # raised again in the caller's thread, by answer.result()
                answer.set_exception(error)

        with self._lock:
            self.check_alive()
            self._inbox.put(post)
        return answer.result()

    def close(self) -> None:
        """End the thread after the current step. Requests in flight end with EngineError. May be called twice."""
        self._inbox.put(self._close)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self, core: EngineCore) -> None:
        ending = EngineError("the engine was closed; make a new one to go on.")
        try:
            while self._read_inbox(core):
                for output in core.step():
                    self._deliver(output, core)
                    if core.is_dead and output.error is not None:
                        ending = output.error
        except Exception as error:  # the engine's loop: nobody else could tell those who wait
            logger.exception("the engine thread died")
            ending = EngineError(f"the engine died of {error!r}. Make a new one; report this if it happens again.")
            ending.__cause__ = error
        self._end(core, ending)

    def _read_inbox(self, core: EngineCore) -> bool:
        """Run what was posted, waiting for it while there is nothing to compute. False: stop."""
        while not self._is_closing and not core.is_dead:
            try:
                post = self._inbox.get(block=self._num_holds > 0 or not core.has_unfinished())
            except queue.Empty:
                return True
            post(core)
        return False

    def _deliver(self, output: EngineOutput, core: EngineCore) -> None:
        group = self._groups.get(output.request_id)
        if group is None:
            return  # aborted in answer to another output of the same step
        if output.finish_reason is not None:
            del self._groups[output.request_id]
        if output.error is None:
            group.on_output(output, core)
            return
        group.fail(output.error)
        if not core.is_dead:
            self._abort(core, group)

    def _add(self, core: EngineCore, group: RequestGroup) -> None:
        self.check_alive()
        added: list[str] = []
        try:
            for request in group.requests:
                core.add_request(request)
                added.append(request.request_id)
        except BaseException:
            for request_id in added:
                core.abort(request_id)
            raise
        self._groups.update(dict.fromkeys(added, group))
        group.start(core)

    def _abort(self, core: EngineCore, group: RequestGroup) -> None:
        for request in group.requests:
            core.abort(request.request_id)
            self._groups.pop(request.request_id, None)
        group.on_abort()

    def _count_holds(self, change: int) -> None:
        self._num_holds += change

    def _close(self, _core: EngineCore) -> None:
        self._is_closing = True

    def check_alive(self) -> None:
        """Raise EngineError if the engine is dead or closed. Waits for no step."""
        if self._ending is not None:
            raise EngineError(str(self._ending)) from self._ending

    def _end(self, core: EngineCore, ending: EngineError) -> None:
        with self._lock:
            self._ending = ending
        for group in set(self._groups.values()):
            group.fail(ending)
        self._groups.clear()
        while not self._inbox.empty():  # posted before the end; what asks for more is refused by check_alive
            self._inbox.get()(core)
