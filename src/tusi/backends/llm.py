"""`LLM`: vLLM's offline shape over a Backend. Lists in, lists out, in order; one bad input does not cost the others."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tusi.backends.batch import OnError, per_item, run_batch
from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.prompts import TextPrompt
from tusi.backends.local.stream import LocalStream
from tusi.backends.outputs import RequestOutput
from tusi.backends.protocol import Backend, ChatRequest, ChatResult, DeltaStream
from tusi.chat.messages import ImagePart, Message, VideoPart
from tusi.chat.openai import parse_messages, parse_tools
from tusi.core.errors import BackendUnavailable, RequestError, TusiError
from tusi.core.kv_dtype import KVCacheDtypeChoice
from tusi.core.types import Activations, WeightFormatChoice, WeightMemory
from tusi.engine.config import EngineConfig
from tusi.engine.sampling_params import SamplingParams
from tusi.models.embedded import default_model
from tusi.processing.limits import MediaLimits

Conversation = Sequence[Message | Mapping[str, Any]]
Prompt = str | Mapping[str, Any]
Job = Callable[[], ChatResult]

# Threads beyond the sequences that run at once: they prepare the next prompts meanwhile.
_PREPARING_THREADS = 4
_DEFAULT_THREADS = 16
_QUICK_CHARACTERS = 4096
_PROMPT_KEYS = ("prompt", "prompt_token_ids", "multi_modal_data", "mm_processor_kwargs")


class LLM:
    """A model to be asked in batches.

    model: a checkpoint folder, a model that was pulled, or "random" (tiny, answers mean nothing); None: TUSI_MODEL, or
    tusi-mini, which comes with the package. dtype: fp32, bf16,
    int8, int4, or auto: as stored if the checkpoint is quantised, else bf16. max_model_len None: the model's own, at
    most EngineConfig's default. The other limits are those of EngineConfig and MediaLimits. media_cache_bytes: pixel
    data of media kept for reuse. weight_memory: where weights packed by `tusi pack` lie, anonymous (read into huge
    pages) or mmap (the file's pages, which processes share); None: TUSI_WEIGHT_MEMORY. activations: products over int4
    and int8 weights round their input (int8, the default there) or take it as it is (float32).

    Use it in a `with` block, or call close(). Raises CheckpointError or ConfigError.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: WeightFormatChoice = "auto",
        max_model_len: int | None = None,
        max_num_seqs: int = EngineConfig().max_num_seqs,
        max_num_batched_tokens: int = EngineConfig().max_num_batched_tokens,
        block_size: int = EngineConfig().block_size,
        num_blocks: int | None = None,
        kv_cache_bytes: int | None = None,
        kv_cache_dtype: KVCacheDtypeChoice = "auto",
        enable_prefix_caching: bool = True,
        encoder_cache_tokens: int = EngineConfig().encoder_cache_tokens,
        media_limits: MediaLimits | None = None,
        media_cache_bytes: int | None = None,
        weight_memory: WeightMemory | None = None,
        activations: Activations | None = None,
    ) -> None:
        engine_config = EngineConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            block_size=block_size,
            num_blocks=num_blocks,
            kv_cache_bytes=kv_cache_bytes,
            kv_cache_dtype=kv_cache_dtype,
            enable_prefix_caching=enable_prefix_caching,
            encoder_cache_tokens=encoder_cache_tokens,
        )
        self.backend: Backend = LocalBackend.load(
            default_model() if model is None else model,
            dtype=dtype,
            max_model_len=max_model_len,
            engine_config=engine_config,
            media_limits=media_limits,
            media_cache_bytes=media_cache_bytes,
            weight_memory=weight_memory,
            activations=activations,
        )

    @classmethod
    def from_backend(cls, backend: Backend) -> LLM:
        """An LLM over any Backend (a FakeBackend, say). `generate` needs a LocalBackend."""
        llm = cls.__new__(cls)
        llm.backend = backend
        return llm

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.backend.model

    def get_default_sampling_params(self) -> SamplingParams:
        """What is used where no SamplingParams are given: the checkpoint's generation_config.json."""
        return self.backend.default_sampling_params

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
        use_tqdm: bool = False,
        on_error: OnError = "raise",
    ) -> list[RequestOutput]:
        """Answer one conversation or a list of them; a list of outputs in the same order.

        messages: OpenAI-shaped dictionaries or Message values. chat_template_kwargs: `enable_thinking` and others.
        use_tqdm: show progress on standard error. on_error: "raise" raises the error of a single conversation itself,
        and BatchError (which has every output) for a list; "return" gives outputs whose `.error` is set.
        """
        conversations = _as_batch(messages)
        params = self._params_for(sampling_params, len(conversations))

        def job(conversation: Conversation, one: SamplingParams, request_id: str) -> Job:
            return lambda: self.backend.generate(
                _request(conversation, one, tools, chat_template_kwargs, mm_processor_kwargs, request_id)
            )

        request_ids = _request_ids(len(conversations))
        jobs = [job(*of_one) for of_one in zip(conversations, params, request_ids, strict=True)]
        return self._run(jobs, request_ids, on_error=on_error, use_tqdm=use_tqdm)

    def stream_chat(
        self,
        messages: Conversation,
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> DeltaStream:
        """Answer one conversation as it comes: an iterator of ChatDelta. Closing or dropping it aborts the request."""
        params = sampling_params or self.get_default_sampling_params()
        return self.backend.stream(_request(messages, params, tools, chat_template_kwargs, mm_processor_kwargs, None))

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
        on_error: OnError = "raise",
    ) -> list[RequestOutput]:
        """Continue prompts that are rendered already.

        A prompt is text, or {"prompt": text with placeholders, "multi_modal_data": {"image": ..., "video": ...},
        "mm_processor_kwargs": {...}} with one medium or a list of them, or {"prompt_token_ids": [...]}.
        """
        backend = self.backend
        if not isinstance(backend, LocalBackend):
            raise BackendUnavailable(
                f"raw prompts need the model in this process, and {type(backend).__name__} has only conversations. "
                "Use chat(), or LLM(model)."
            )
        items: list[Prompt] = [prompts] if isinstance(prompts, str | Mapping) else list(prompts)
        params = self._params_for(sampling_params, len(items))

        def job(prompt: Prompt, one: SamplingParams, request_id: str) -> Job:
            return lambda: backend.generate_text(_text_prompt(prompt), one, request_id=request_id)

        request_ids = _request_ids(len(items))
        asked = list(zip(items, params, request_ids, strict=True))
        num_quick = next((at for at, item in enumerate(items) if not _is_quick(item)), len(items))
        first = asked[: min(num_quick, backend.max_num_seqs)]
        jobs = [*_begin_together(backend, first), *(job(*of_one) for of_one in asked[len(first) :])]
        # What has begun needs no thread of its own to get on.
        num_threads = None if len(first) < len(jobs) else 1
        return self._run(jobs, request_ids, num_threads=num_threads, on_error=on_error, use_tqdm=use_tqdm)

    def close(self) -> None:
        """Give back the engine's thread and memory."""
        self.backend.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _params_for(
        self, sampling_params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        if sampling_params is None:
            sampling_params = self.get_default_sampling_params()
        return per_item(sampling_params, count, name="sampling_params", kind=SamplingParams)

    def _run(
        self,
        jobs: Sequence[Job],
        request_ids: Sequence[str],
        *,
        num_threads: int | None = None,
        on_error: OnError,
        use_tqdm: bool,
    ) -> list[RequestOutput]:
        def output_of(job: Job) -> Callable[[], RequestOutput]:
            return lambda: RequestOutput.from_result(job())

        def cancel() -> None:
            for request_id in request_ids:
                self.backend.abort(request_id)

        backend = self.backend
        width = backend.max_num_seqs if isinstance(backend, LocalBackend) else _DEFAULT_THREADS
        with _progress(len(jobs), use_tqdm) as advance:
            return run_batch(
                [output_of(job) for job in jobs],
                num_threads=num_threads or width + _PREPARING_THREADS,
                on_error=on_error,
                cancel=cancel,
                on_done=advance,
            )


def _request_ids(count: int) -> list[str]:
    return [f"llm-{uuid.uuid4().hex}" for _ in range(count)]


def _is_quick(prompt: Prompt) -> bool:
    """True if a prompt takes next to no time to prepare."""
    if isinstance(prompt, str):
        return len(prompt) <= _QUICK_CHARACTERS
    text = prompt.get("prompt")
    return not prompt.get("multi_modal_data") and (text is None or len(text) <= _QUICK_CHARACTERS)


def _begin_together(backend: LocalBackend, asked: Sequence[tuple[Prompt, SamplingParams, str]]) -> list[Job]:
    """Begin prompts in one step of the engine, and return what waits for each.

    From as many threads they would arrive one after the other, and each would hold up those that run already.
    """

    def wait_for(stream: LocalStream, n: int) -> Job:
        return lambda: backend.collect(stream, n)

    def refuse(error: TusiError) -> Job:
        def job() -> ChatResult:
            raise error

        return job

    jobs: list[Job] = []
    with backend.hold():
        for prompt, params, request_id in asked:
            try:
                stream = backend.stream_text(_text_prompt(prompt), params, request_id=request_id)
            except TusiError as error:
                jobs.append(refuse(error))
            else:
                stream.read_at_the_end()
                jobs.append(wait_for(stream, params.n))
    return jobs


def _as_batch(messages: Conversation | Sequence[Conversation]) -> Sequence[Conversation]:
    """A list of conversations is a list of lists; one conversation is a list of messages."""
    if messages and all(isinstance(item, list | tuple) for item in messages):
        return messages  # type: ignore[return-value]
    return [messages]  # type: ignore[list-item]


def _request(
    conversation: Conversation,
    params: SamplingParams,
    tools: Sequence[Mapping[str, Any]] | None,
    chat_template_kwargs: Mapping[str, Any] | None,
    mm_processor_kwargs: Mapping[str, Any] | None,
    request_id: str | None,
) -> ChatRequest:
    return ChatRequest(
        messages=as_messages(conversation),
        tools=parse_tools(tools),
        sampling_params=params,
        template_kwargs=chat_template_kwargs or {},
        mm_processor_kwargs=mm_processor_kwargs or {},
        request_id=request_id,
    )


def as_messages(conversation: Conversation) -> tuple[Message, ...]:
    """Messages from OpenAI-shaped dictionaries, or those values themselves. Raises RequestError."""
    messages = tuple(message for message in conversation if isinstance(message, Message))
    if messages and len(messages) == len(conversation):
        return messages
    return parse_messages(conversation)


def _text_prompt(prompt: Prompt) -> TextPrompt:
    if isinstance(prompt, str):
        return TextPrompt(text=prompt)
    unknown = set(prompt) - set(_PROMPT_KEYS)
    if unknown:
        raise RequestError(
            f"a prompt has the field {min(unknown)!r}; known: {', '.join(_PROMPT_KEYS)}. Correct it or drop it.",
            param=min(unknown),
        )
    media = prompt.get("multi_modal_data") or {}
    unknown = set(media) - {"image", "video"}
    if unknown:
        raise RequestError(
            f'multi_modal_data has {min(unknown)!r}; this model reads "image" and "video". Leave it out.',
            param="multi_modal_data",
        )
    return TextPrompt(
        text=prompt.get("prompt"),
        token_ids=prompt.get("prompt_token_ids"),
        images=[item if isinstance(item, ImagePart) else ImagePart(item) for item in _as_list(media.get("image"))],
        videos=[item if isinstance(item, VideoPart) else VideoPart(item) for item in _as_list(media.get("video"))],
        mm_processor_kwargs=prompt.get("mm_processor_kwargs") or {},
    )


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    if not shown:
        yield lambda: None
        return
    # Only who wants a bar pays for importing rich.
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("answers", total=total)
        yield lambda: progress.advance(task)
