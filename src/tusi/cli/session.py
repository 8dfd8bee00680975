"""What `ask` and `chat` share: which model, how it is opened, and how a request is made of options."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tusi.backends.protocol import Backend, ChatRequest
from tusi.cli.console import stderr_console
from tusi.core.errors import ConfigError
from tusi.core.types import Activations, WeightFormatChoice, WeightMemory
from tusi.engine.sampling_params import SamplingParams, StructuredOutputsParams
from tusi.models.embedded import default_model

if TYPE_CHECKING:
    from tusi.engine.config import EngineConfig
    from tusi.processing.limits import MediaLimits

RANDOM_MODEL = "random"
RANDOM_REMARK = (
    "### The model is RANDOM: a tiny one with random weights. What it wrote is NOISE and says nothing about the "
    "pictures; it only shows that the installation works. ###"
)
_CROWD_TOKENS = 768  # of the KV cache for each of many conversations; those of the world take 100 to 600
DType = WeightFormatChoice
KVDType = Literal["auto", "float32", "bfloat16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is loaded. max_model_len None: the engine's default.

    weight_memory, activations None: TUSI_WEIGHT_MEMORY's, and int8 where weights are integers.
    engine_config, media_limits: None: what suits one person at their own machine. kv_cache_dtype goes before the
    engine_config's own.
    num_replicas: processes that each have the model; None: it runs in this process.
    """

    model: str | None = None
    dtype: DType = "auto"
    kv_cache_dtype: KVDType = "auto"
    weight_memory: WeightMemory | None = None
    activations: Activations | None = None
    max_model_len: int | None = None
    allow_private_addresses: bool = False
    engine_config: EngineConfig | None = None
    media_limits: MediaLimits | None = None
    num_replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How answers are drawn and shown; None leaves a value to the model's own settings."""

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    json_schema: str | None = None
    mm_processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    show_thoughts: bool = True


def choose_model(flag: str | None) -> str:
    """The flag, else TUSI_MODEL, else the embedded model."""
    return flag or default_model()


@contextmanager
def opened_backend(options: ModelOptions) -> Iterator[Backend]:
    """The model, loaded with a progress bar on standard error; closed at the end."""
    name = choose_model(options.model)
    backend = load_backend(name, options)
    try:
        yield backend
    finally:
        backend.close()
        if name == RANDOM_MODEL:
            print(RANDOM_REMARK, file=sys.stderr)


def crowd_config(concurrency: int) -> EngineConfig | None:
    """An engine that runs so many short conversations at once; None: the usual one is enough."""
    from tusi.engine.config import EngineConfig

    usual = EngineConfig()
    if concurrency <= usual.max_num_seqs:
        return None
    return EngineConfig(
        max_num_seqs=concurrency,
        max_num_batched_tokens=max(usual.max_num_batched_tokens, 16 * concurrency),
        num_blocks=max(usual.max_model_len, concurrency * _CROWD_TOKENS) // usual.block_size,
    )


def load_backend(name: str, options: ModelOptions) -> Backend:
    """Load a model to run in this process, or in those of its replicas. Raises CheckpointError or ConfigError."""
    if options.num_replicas is not None:
        return load_replicas(name, options, options.num_replicas)
    # Imported here: a wrong word on the command line should not cost the seconds that these take.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from tusi.backends.local.backend import LocalBackend
    from tusi.processing.limits import MediaLimits

    columns = (TextColumn("loading {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)
        return LocalBackend.load(
            name,
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            engine_config=_engine_config(options),
            media_limits=options.media_limits or MediaLimits(allow_private_addresses=options.allow_private_addresses),
            weight_memory=options.weight_memory,
            activations=options.activations,
            progress=lambda _tensor, done, total: bar.update(task, completed=done, total=total),
        )


def load_replicas(name: str, options: ModelOptions, num_replicas: int) -> Backend:
    """Load a model in processes of its own. Raises CheckpointError or ConfigError."""
    from functools import partial

    from tusi.backends.local.backend import LocalBackend
    from tusi.backends.local.loading import load_frontend, model_folder
    from tusi.backends.replicas.backend import ReplicaBackend
    from tusi.kernels.runtime import num_threads
    from tusi.processing.limits import MediaLimits

    limits = options.media_limits or MediaLimits(allow_private_addresses=options.allow_private_addresses)
    with model_folder(name) as folder:
        frontend = load_frontend(folder, name=name, media_limits=limits)
    load = partial(
        LocalBackend.load,
        name,
        dtype=options.dtype,
        max_model_len=options.max_model_len,
        engine_config=_engine_config(options),
        media_limits=limits,
        weight_memory=options.weight_memory,
        activations=options.activations,
    )
    return ReplicaBackend(load, num_replicas, num_threads=num_threads(), frontend=frontend)


def _engine_config(options: ModelOptions) -> EngineConfig:
    from tusi.engine.config import EngineConfig

    return replace(options.engine_config or EngineConfig(), kv_cache_dtype=options.kv_cache_dtype)


def media_kwargs(fps: float | None, max_frames: int | None, max_pixels: int | None) -> dict[str, Any]:
    """mm_processor_kwargs of the options that were given."""
    options = {"fps": fps, "max_frames": max_frames, "image_max_pixels": max_pixels}
    return {name: value for name, value in options.items() if value is not None}


def make_request(backend: Backend, messages: tuple[Any, ...], options: AnswerOptions) -> ChatRequest:
    """A request with the model's own sampling settings, changed where the user said so. Raises RequestError."""
    # A local model has settings of its own (generation_config.json); other backends apply theirs themselves.
    params: SamplingParams = getattr(backend, "default_sampling_params", SamplingParams())
    names = ("max_tokens", "temperature", "seed", "thinking_budget")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.json_schema is not None:
        changes["structured_outputs"] = StructuredOutputsParams(json=options.json_schema)
    return ChatRequest(
        messages=messages,
        sampling_params=replace(params, **changes),
        template_kwargs={} if options.thinking is None else {"enable_thinking": options.thinking},
        mm_processor_kwargs=options.mm_processor_kwargs,
    )


def read_schema(path: Path) -> str:
    """The text of a JSON schema file. Raises ConfigError."""
    import json

    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except OSError as error:
        raise ConfigError(f"--json-schema {path} cannot be read ({error.strerror}). Check the path.") from error
    except ValueError as error:
        raise ConfigError(f"--json-schema {path} is not JSON ({error}). Give a file with a JSON schema.") from error
    return text
