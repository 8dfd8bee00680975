"""ReplicaBackend: a Backend over several engine processes on this machine.

Each process has the model for itself. A request goes to the replica that owes least or has its prefix (`routing`); one
that dies takes its running requests with it, each of which raises ReplicaLost, and is started again (`supervisor`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tusi.backends.collect import collect
from tusi.backends.local.loading import Frontend
from tusi.backends.local.prompts import TextPrompt
from tusi.backends.protocol import Backend, ChatRequest, ChatResult
from tusi.backends.replicas.messages import Ready
from tusi.backends.replicas.process import EngineProcess, ReplicaStream
from tusi.backends.replicas.routing import Prefix, Router, chat_prefixes, text_prefixes
from tusi.backends.replicas.supervisor import Patience, Replica, State
from tusi.chat.messages import ImagePart
from tusi.core.errors import ConfigError, EngineError, EngineRestarting
from tusi.core.types import WeightFormat
from tusi.engine.outputs import EngineStats
from tusi.engine.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

STATS_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica as it is just now. load: completions it owes."""

    index: int
    state: State
    pid: int | None
    load: int
    num_restarts: int


class ReplicaBackend:
    """num_replicas processes, each with the backend that load() makes there: load must pickle.

    num_threads: of all native kernels together; shared out. num_workers: prompts that one process prepares at once.
    frontend: tokenizer and processor for callers that want to look at prompts here. The processes are started one after
    another, so that each sees the memory that those before it have taken. Raises what load() raises, and ConfigError.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        num_replicas: int,
        *,
        num_threads: int,
        num_workers: int = 64,
        frontend: Frontend | None = None,
        patience: Patience | None = None,
    ) -> None:
        if num_replicas < 1:
            raise ConfigError(f"the number of replicas is {num_replicas}; it must be 1 or more. Correct it.")
        self.frontend = frontend
        self._router = Router()
        self._lock = threading.Lock()
        self._streams: weakref.WeakValueDictionary[str, ReplicaStream] = weakref.WeakValueDictionary()
        self._last_stats: dict[int, EngineStats] = {}
        self._replicas = [
            Replica(index, _starter(index, load, share, num_workers), patience or Patience(), self._on_death)
            for index, share in enumerate(share_threads(num_threads, num_replicas))
        ]
        try:
            self._facts = self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def model(self) -> str:
        """Name of the model that answers."""
        return self._facts.model

    @property
    def default_sampling_params(self) -> SamplingParams:
        """What the model's makers recommend."""
        return self._facts.default_sampling_params

    @property
    def max_model_len(self) -> int | None:
        """Tokens of a prompt and its output together."""
        return self._facts.max_model_len

    @property
    def image_max_pixels(self) -> int | None:
        """Pixels of a picture that the model sees at once."""
        return self._facts.image_max_pixels

    @property
    def precision(self) -> WeightFormat | None:
        """The format of the model's weight matrices."""
        return self._facts.precision

    @property
    def has_text(self) -> bool:
        """Whether stream_text works."""
        return self._facts.has_text

    @property
    def has_stats(self) -> bool:
        """Whether stats works."""
        return self._facts.has_stats

    def generate(self, request: ChatRequest) -> ChatResult:
        """Answer in one piece. Raises RequestError, CapacityError, EngineRestarting or EngineError."""
        request_id = request.request_id or _new_id()
        stream = self._chat(request, request_id)
        choices, usage = collect(stream, n=request.sampling_params.n)
        return ChatResult(request_id=request_id, model=self.model, choices=choices, usage=usage)

    def stream(self, request: ChatRequest) -> ReplicaStream:
        """Answer as it comes. Bad requests raise here; closing or dropping the stream aborts the request."""
        return self._chat(request, request.request_id or _new_id())

    def stream_text(
        self, prompt: TextPrompt, sampling_params: SamplingParams, *, request_id: str | None = None, **options: Any
    ) -> ReplicaStream:
        """As stream, for a prompt that somebody else rendered."""
        request_id = request_id or _new_id()
        process = self._choose(text_prefixes(prompt))
        stream = process.stream(
            "stream_text",
            prompt,
            sampling_params,
            request_id=request_id,
            weight=sampling_params.n,
            options={"request_id": request_id, **options},
        )
        self._streams[request_id] = stream
        return stream

    def embed_image(self, image: ImagePart) -> Any:
        """A picture as one vector [D]; see LocalBackend."""
        return self._choose([]).call("embed_image", image)

    def abort(self, request_id: str) -> None:
        """End a request early; its completions finish with `abort`. Unknown and finished ids are ignored."""
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.abort()

    def check_alive(self) -> None:
        """Raise EngineError unless a replica takes requests. Waits for nothing."""
        if not self._living():
            raise EngineError(f"no replica takes requests ({self._told_states()}).")

    def status(self) -> list[ReplicaStatus]:
        """All replicas as they are just now. Waits for nothing."""
        return [
            ReplicaStatus(
                index=replica.index,
                state=replica.state,
                pid=replica.pid,
                load=0 if (process := replica.process) is None else process.load,
                num_restarts=replica.num_restarts,
            )
            for replica in self._replicas
        ]

    def stats(self) -> Mapping[int, EngineStats | None]:
        """The engines' counters by replica; None for one that does not live.

        One that is in a long step is not waited for beyond STATS_TIMEOUT: its last counters stand for it.
        """
        found: dict[int, EngineStats | None] = {}
        deadline = time.monotonic() + STATS_TIMEOUT
        for index, process in self._living().items():
            try:
                found[index] = self._last_stats[index] = process.call(
                    "stats", timeout=max(0.01, deadline - time.monotonic())
                )
            except TimeoutError:
                found[index] = self._last_stats.get(index)
            except EngineError:
                found[index] = None
        return {replica.index: found.get(replica.index) for replica in self._replicas}

    def close(self) -> None:
        """End all processes. Requests in flight end with ReplicaLost. May be called twice."""
        for replica in self._replicas:
            replica.stop()

    def _begin(self) -> Ready:
        facts = [replica.begin() for replica in self._replicas]
        return facts[0]

    def _chat(self, request: ChatRequest, request_id: str) -> ReplicaStream:
        process = self._choose(chat_prefixes(request) if len(self._replicas) > 1 else [])
        weight = request.sampling_params.n
        stream = process.stream("stream", request, request_id=request_id, weight=weight, options={})
        self._streams[request_id] = stream
        return stream

    def _choose(self, prefixes: Sequence[Prefix]) -> EngineProcess:
        living = self._living()
        if not living:
            raise EngineRestarting(
                f"no engine process lives just now ({self._told_states()}); another one is being started. Try again "
                "in a few seconds."
            )
        loads = {index: process.load for index, process in living.items()}
        with self._lock:
            return living[self._router.choose(prefixes, loads, self._facts.max_num_seqs or 16)]

    def _living(self) -> dict[int, EngineProcess]:
        return {replica.index: process for replica in self._replicas if (process := replica.process) is not None}

    def _told_states(self) -> str:
        return ", ".join(f"replica {replica.index} is {replica.state}" for replica in self._replicas)

    def _on_death(self, index: int) -> None:
        with self._lock:
            self._router.forget(index)


def share_threads(num_threads: int, num_replicas: int) -> list[int]:
    """Kernel threads for each replica; at least one each."""
    each, left = divmod(num_threads, num_replicas)
    if not each:
        logger.warning("%d replicas share %d threads: more replicas than cores slow each other down",
                       num_replicas, num_threads)  # fmt: skip
    return [max(1, each + (index < left)) for index in range(num_replicas)]


def _starter(
    index: int, load: Callable[[], Backend], num_threads: int, num_workers: int
) -> Callable[[], EngineProcess]:
    return lambda: EngineProcess(index, load, num_threads=num_threads, num_workers=num_workers)


def _new_id() -> str:
    return f"req-{uuid.uuid4().hex}"
