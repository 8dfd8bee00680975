"""LocalBackend: the Backend that runs the model in this process.

A caller's thread prepares the prompt (template, media, tokens), hands it to the engine's thread and reads deltas from a
queue. Any number of threads may do so at once; the engine batches what they ask.
"""

from __future__ import annotations

import uuid
import weakref
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from tusi.backends.collect import collect
from tusi.backends.local.engine_thread import EngineThread
from tusi.backends.local.loading import Frontend, load_frontend, load_weights, model_folder, with_model_len
from tusi.backends.local.output_processor import CompletionProcessor
from tusi.backends.local.prompts import PreparedPrompt, TextPrompt, prepare_chat, prepare_text
from tusi.backends.local.request_group import Completion, CompletionGroup
from tusi.backends.local.stream import LocalStream
from tusi.backends.local.thinking import ThinkingControl, ThinkingTokens, reasoning_limit
from tusi.backends.protocol import ChatRequest, ChatResult
from tusi.backends.structured_outputs import GrammarCompiler, MatcherGrammar
from tusi.backends.tool_grammar import is_strict
from tusi.chat.detokenizer import IncrementalDetokenizer
from tusi.chat.messages import ImagePart
from tusi.chat.prompt import MediaSegment
from tusi.chat.stream import StreamParser
from tusi.chat.tags import RESPONSE_CLOSE, RESPONSE_OPEN, THINK_CLOSE, THINK_OPEN, TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from tusi.core.types import Activations, WeightFormat, WeightFormatChoice, WeightMemory
from tusi.engine.config import EngineConfig
from tusi.engine.core import EngineCore
from tusi.engine.outputs import EngineStats
from tusi.engine.request import Request
from tusi.engine.runner import RunnableModel
from tusi.engine.sampling_params import SamplingParams
from tusi.models.parameters import Progress
from tusi.processing.cache import MediaCache
from tusi.processing.limits import MediaLimits

_DEFAULT_ENGINE_CONFIG = EngineConfig()
_TAGS = (THINK_OPEN, THINK_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE, TOOL_CALL_OPEN, TOOL_CALL_CLOSE)


class LocalBackend:
    """A loaded model and the thread that runs it. See `load` for a model by name.

    precision: the format of its weight matrices, if the caller knows it.
    """

    def __init__(
        self,
        frontend: Frontend,
        model: RunnableModel,
        engine_config: EngineConfig,
        *,
        precision: WeightFormat | None = None,
    ) -> None:
        self.frontend = frontend
        self.precision = precision
        core = EngineCore(model, engine_config)
        self.max_model_len = core.max_model_len
        self.max_num_seqs = engine_config.max_num_seqs
        tokenizer = frontend.tokenizer
        tags = (tokenizer.token_to_id(tag) for tag in _TAGS)
        self._grammars = GrammarCompiler(
            tokenizer,
            vocab_size=frontend.config.text_config.vocab_size,
            eos_token_ids=frontend.eos_token_ids,
            tag_token_ids=[token_id for token_id in tags if token_id is not None],
        )
        self._thinking_tokens = ThinkingTokens.from_tokenizer(tokenizer)
        self._groups: weakref.WeakValueDictionary[str, CompletionGroup] = weakref.WeakValueDictionary()
        self._engine = EngineThread(core)
        # Also at interpreter exit: the engine's thread must not run into a half-dismantled interpreter.
        self._finalizer = weakref.finalize(self, EngineThread.close, self._engine)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: WeightFormatChoice = "auto",
        max_model_len: int | None = None,
        engine_config: EngineConfig = _DEFAULT_ENGINE_CONFIG,
        media_limits: MediaLimits | None = None,
        media_cache_bytes: int | None = None,
        weight_memory: WeightMemory | None = None,
        activations: Activations | None = None,
        progress: Progress | None = None,
    ) -> LocalBackend:
        """Load a checkpoint folder, a model that was pulled, or "random" (a tiny one whose answers mean nothing).

        max_model_len: tokens of a prompt and its output; None: engine_config's, but at most the model's own.
        media_cache_bytes: how much pixel data of media to keep for reuse (None: nothing). weight_memory: where packed
        weights lie; None: what TUSI_WEIGHT_MEMORY says. activations: what products over integer weights do with their
        input; None: int8. Raises CheckpointError, or ConfigError for what does not fit or cannot be honoured.
        """
        cache = MediaCache(media_cache_bytes) if media_cache_bytes is not None else None
        with model_folder(model) as folder:
            frontend = load_frontend(folder, name=str(model), media_limits=media_limits, media_cache=cache)
            engine_config = with_model_len(engine_config, max_model_len, frontend.config)
            weights = load_weights(
                folder,
                dtype=dtype,
                engine_config=engine_config,
                weight_memory=weight_memory,
                activations=activations,
                progress=progress,
            )
        return cls(frontend, weights, engine_config, precision=weights.dtype)

    @property
    def model(self) -> str:
        """The name by which the model was loaded."""
        return self.frontend.name

    @property
    def default_sampling_params(self) -> SamplingParams:
        """What the checkpoint's makers recommend (generation_config.json)."""
        return self.frontend.default_sampling_params

    @property
    def image_max_pixels(self) -> int:
        """Pixels of a picture that the model sees at once; larger ones are scaled down to about that."""
        return self.frontend.processor.config.image.max_pixels

    def generate(self, request: ChatRequest) -> ChatResult:
        """Answer in one piece. Raises RequestError, CapacityError or EngineError."""
        return self.collect(self.stream(request), request.sampling_params.n)

    def stream(self, request: ChatRequest) -> LocalStream:
        """Answer as it comes. Bad requests raise here; closing or dropping the stream aborts the request."""
        prepared = prepare_chat(self.frontend, request)
        return self._start(prepared, request.sampling_params, request.request_id, request.priority)

    def generate_text(
        self, prompt: TextPrompt, sampling_params: SamplingParams, *, request_id: str | None = None
    ) -> ChatResult:
        """As generate, for a prompt that somebody else rendered."""
        return self.collect(self.stream_text(prompt, sampling_params, request_id=request_id), sampling_params.n)

    def stream_text(
        self,
        prompt: TextPrompt,
        sampling_params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
    ) -> LocalStream:
        """As stream, for a prompt that somebody else rendered."""
        return self._start(prepare_text(self.frontend, prompt), sampling_params, request_id, priority)

    def stream_prepared(
        self, prepared: PreparedPrompt, sampling_params: SamplingParams, *, request_id: str | None = None
    ) -> LocalStream:
        """As stream, for a prompt that is pixels and tokens already."""
        return self._start(prepared, sampling_params, request_id)

    def collect(self, stream: LocalStream, n: int) -> ChatResult:
        """Wait for the whole answer of a stream of n completions that nothing was read from yet."""
        with stream:
            choices, usage = collect(stream.rest(), n=n)
        return ChatResult(
            request_id=stream.request_id,
            model=self.model,
            choices=choices,
            usage=usage,
            prompt=stream.prompt,
            prompt_token_ids=stream.prompt_token_ids,
        )

    def hold(self) -> AbstractContextManager[None]:
        """While it is open, streams can be begun and none gets on: so they all begin in one step of the engine."""
        return self._engine.hold()

    def abort(self, request_id: str) -> None:
        """End a request early; its completions finish with `abort`. Unknown and finished ids are ignored."""
        group = self._groups.get(request_id)
        if group is not None:
            self._engine.abort(group)

    def embed_image(self, image: ImagePart) -> NDArray[np.float32]:
        """A picture as one vector [D]: the mean of what the vision tower hands to the language model.

        Two pictures are alike if their vectors are. Raises what a picture in a prompt raises, and EngineError.
        """
        processed = self.frontend.processor.process([MediaSegment(image)])
        features_TD = self._engine.call(lambda core: core.encode_media(processed.media[0]))
        mean_D: NDArray[np.float32] = features_TD.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean_D

    def check_alive(self) -> None:
        """Raise EngineError if the engine is dead or closed. Unlike stats, waits for no step."""
        self._engine.check_alive()

    def stats(self) -> EngineStats:
        """The engine's counters. Raises EngineError if it is dead or closed."""
        return self._engine.call(lambda core: core.stats())

    def close(self) -> None:
        """End the engine's thread and free its memory. Requests in flight end with EngineError. May be called twice."""
        self._finalizer()

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(
        self, prepared: PreparedPrompt, params: SamplingParams, request_id: str | None, priority: int = 0
    ) -> LocalStream:
        request_id = request_id or f"req-{uuid.uuid4().hex}"
        grammars = self._compile_grammars(prepared, params)
        completions = [
            self._completion(index, request_id, prepared, params, grammar) for index, grammar in enumerate(grammars)
        ]
        for completion in completions:
            completion.request.priority = priority
        group = CompletionGroup(request_id, completions, prepared.usage)
        self._groups[request_id] = group
        self._engine.submit(group)
        return LocalStream(
            group,
            self._engine.abort,
            request_id=request_id,
            prompt=prepared.text,
            prompt_token_ids=prepared.processed.input_ids,
        )

    def _compile_grammars(self, prepared: PreparedPrompt, params: SamplingParams) -> list[MatcherGrammar | None]:
        lead = self._thinking_tokens.blank_line_ids if prepared.starts_in_reasoning else ()
        must_fit = prepared.tool_choice != "auto" or params.structured_outputs is not None
        if prepared.tools and (must_fit or is_strict(prepared.tools)):
            return [
                *self._grammars.compile_tools(
                    prepared.tools,
                    choice=prepared.tool_choice,
                    parallel=prepared.parallel_tool_calls,
                    # Who must call a tool cannot answer instead.
                    answer=params.structured_outputs if prepared.tool_choice == "auto" else None,
                    count=params.n,
                    lead_token_ids=lead,
                )
            ]
        if params.structured_outputs is None:
            return [None] * params.n
        return [*self._grammars.compile(params.structured_outputs, count=params.n, lead_token_ids=lead)]

    def _completion(
        self,
        index: int,
        request_id: str,
        prepared: PreparedPrompt,
        params: SamplingParams,
        grammar: MatcherGrammar | None,
    ) -> Completion:
        """One of the n completions: a request of its own, which shares the prompt's blocks through the prefix cache."""
        processed = prepared.processed
        starts = prepared.starts_in_reasoning
        # Completion number 0 draws what it would draw alone.
        seed = None if params.seed is None else params.seed + index
        request = Request(
            request_id=request_id if params.n == 1 else f"{request_id}-{index}",
            prompt_token_ids=processed.input_ids,
            sampling_params=replace(params, n=1, seed=seed),
            mm_features=prepared.features,
            position_ids=processed.position_ids,
            token_types=processed.moe_mm_token_type_ids,
            mrope_position_delta=processed.mrope_position_delta,
            grammar=grammar,
            reasoning_end_token_ids=(self._thinking_tokens.end_id,) if starts else (),
            eos_token_ids=self.frontend.eos_token_ids,
        )
        parser = StreamParser(
            starts, tools_offered=prepared.tools_offered, make_id=lambda call: f"call_{request_id}_{index}_{call}"
        )
        processor = CompletionProcessor(
            index,
            params,
            detokenizer=IncrementalDetokenizer(self.frontend.tokenizer, skip_special_tokens=params.skip_special_tokens),
            parser=parser,
            thinking=self._thinking(prepared, params),
            thinking_tokens=self._thinking_tokens,
            last_prompt_token_id=processed.input_ids[-1] if processed.input_ids else None,
            must_answer=grammar is not None,
            max_tool_calls=None if prepared.parallel_tool_calls else 1,
        )
        return Completion(request, processor, grammar)

    def _thinking(self, prepared: PreparedPrompt, params: SamplingParams) -> ThinkingControl:
        room = max(1, self.max_model_len - len(prepared.processed.input_ids))
        limit = reasoning_limit(
            thinking_budget=params.thinking_budget,
            max_tokens=min(room, params.max_tokens or room),
            closing_length=len(self._thinking_tokens.closing_ids(None)),
        )
        return ThinkingControl(
            self._thinking_tokens,
            starts_in_reasoning=prepared.starts_in_reasoning,
            limit=limit if prepared.limits_thinking else None,
            break_repetition=params.repetition_break,
        )
