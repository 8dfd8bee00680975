"""What the server may know of a model beyond the Backend protocol. A backend that runs elsewhere has less to tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.prompts import TextPrompt, prepare_chat
from tusi.backends.protocol import Backend, ChatRequest, DeltaStream
from tusi.chat.tokenizer import Tokenizer
from tusi.core.errors import BackendUnavailable
from tusi.core.types import WeightFormat
from tusi.engine.outputs import EngineStats
from tusi.engine.sampling_params import SamplingParams

StreamText = Callable[[TextPrompt, SamplingParams, str], DeltaStream]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a backend can tell, None for what it cannot.

    precision: how the weights lie in memory. can_switch_thinking: whether the template can leave thoughts out.
    check_alive: raises EngineError if the engine is dead; never waits. stats: the engine's counters, between two steps;
    raises EngineError too. stream_text: for prompts without a template. prompt_ids: the tokens of a conversation, those
    of its media included.
    """

    tokenizer: Tokenizer | None = None
    precision: WeightFormat | None = None
    can_switch_thinking: bool | None = None
    max_model_len: int | None = None
    check_alive: Callable[[], None] | None = None
    stats: Callable[[], EngineStats] | None = None
    stream_text: StreamText | None = None
    prompt_ids: Callable[[ChatRequest], Sequence[int]] | None = None

    @classmethod
    def of(cls, backend: Backend) -> ModelFacts:
        """All that a backend can tell."""
        if not isinstance(backend, LocalBackend):
            return cls()

        def stream_text(prompt: TextPrompt, params: SamplingParams, request_id: str) -> DeltaStream:
            return backend.stream_text(prompt, params, request_id=request_id)

        return cls(
            tokenizer=backend.frontend.tokenizer,
            precision=backend.precision,
            can_switch_thinking=backend.frontend.template.can_switch_thinking,
            max_model_len=backend.max_model_len,
            check_alive=backend.check_alive,
            stats=backend.stats,
            stream_text=stream_text,
            prompt_ids=lambda request: prepare_chat(backend.frontend, request).processed.input_ids,
        )

    def require_tokenizer(self, what: str) -> Tokenizer:
        """The tokenizer. Raises BackendUnavailable naming what needs it."""
        if self.tokenizer is None:
            raise BackendUnavailable(
                f"{what} needs the model's tokenizer, which this backend does not have. Serve a local model for it."
            )
        return self.tokenizer
