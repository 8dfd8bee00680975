"""What the server may know of a model beyond the Backend protocol. A backend that runs elsewhere has less to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.prompts import TextPrompt, prepare_chat
from tusi.backends.protocol import Backend, ChatRequest, DeltaStream
from tusi.backends.replicas.backend import ReplicaBackend, ReplicaStatus
from tusi.chat.messages import ImagePart
from tusi.chat.tokenizer import Tokenizer
from tusi.core.errors import BackendUnavailable, EngineError
from tusi.core.types import WeightFormat
from tusi.engine.outputs import EngineStats
from tusi.engine.sampling_params import SamplingParams

StreamText = Callable[[TextPrompt, SamplingParams, str, int], DeltaStream]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a backend can tell, None for what it cannot.

    precision: how the weights lie in memory. can_switch_thinking: whether the template can leave thoughts out.
    check_alive: raises EngineError if the engine is dead; never waits. stats: the counters of every engine by its
    number, between two steps; None for one that is dead. replicas: how they are, if there are any; never waits.
    stream_text: for prompts without a template. prompt_ids: the tokens of a conversation, those of its media included.
    embed_image: a picture as one vector.
    """

    tokenizer: Tokenizer | None = None
    precision: WeightFormat | None = None
    can_switch_thinking: bool | None = None
    max_model_len: int | None = None
    check_alive: Callable[[], None] | None = None
    stats: Callable[[], Mapping[int, EngineStats | None]] | None = None
    replicas: Callable[[], Sequence[ReplicaStatus]] | None = None
    stream_text: StreamText | None = None
    prompt_ids: Callable[[ChatRequest], Sequence[int]] | None = None
    embed_image: Callable[[ImagePart], NDArray[np.float32]] | None = None

    @classmethod
    def of(cls, backend: Backend) -> ModelFacts:
        """All that a backend can tell."""
        if not isinstance(backend, LocalBackend | ReplicaBackend):
            return cls()
        frontend = backend.frontend
        stats: Callable[[], Mapping[int, EngineStats | None]] | None
        if isinstance(backend, LocalBackend):
            has_text, stats, replicas = True, _stats_of_one(backend), None
        else:
            has_text, stats, replicas = backend.has_text, backend.stats if backend.has_stats else None, backend.status

        def stream_text(prompt: TextPrompt, params: SamplingParams, request_id: str, priority: int) -> DeltaStream:
            return backend.stream_text(prompt, params, request_id=request_id, priority=priority)

        def prompt_ids(request: ChatRequest) -> Sequence[int]:
            assert frontend is not None
            return prepare_chat(frontend, request).processed.input_ids

        return cls(
            tokenizer=None if frontend is None else frontend.tokenizer,
            precision=backend.precision,
            can_switch_thinking=None if frontend is None else frontend.template.can_switch_thinking,
            max_model_len=backend.max_model_len,
            check_alive=backend.check_alive,
            stats=stats,
            replicas=replicas,
            stream_text=stream_text if has_text else None,
            prompt_ids=None if frontend is None else prompt_ids,
            embed_image=None if frontend is None else backend.embed_image,
        )

    def require_tokenizer(self, what: str) -> Tokenizer:
        """The tokenizer. Raises BackendUnavailable naming what needs it."""
        if self.tokenizer is None:
            raise BackendUnavailable(
                f"{what} needs the model's tokenizer, which this backend does not have. Serve a local model for it."
            )
        return self.tokenizer


def _stats_of_one(backend: LocalBackend) -> Callable[[], Mapping[int, EngineStats | None]]:
    def stats() -> Mapping[int, EngineStats | None]:
        try:
            return {0: backend.stats()}
        except EngineError:
            return {0: None}

    return stats
