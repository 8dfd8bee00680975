"""From the name of a model to everything that answering takes: weights, tokenizer, template, processor, settings.

Refuses, before it reads a weight, what does not fit into this machine's memory.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from tusi.backends.local.generation_config import GenerationConfig
from tusi.chat.template import ChatTemplate
from tusi.chat.tokenizer import Tokenizer, load_tokenizer
from tusi.core import machine
from tusi.core.env import TUSI_WEIGHT_MEMORY
from tusi.core.errors import ConfigError
from tusi.core.types import Activations, WeightFormat, WeightFormatChoice, WeightMemory
from tusi.engine.config import EngineConfig
from tusi.engine.kv_cache import KVCacheShape, resolve_num_blocks
from tusi.engine.sampling_params import SamplingParams
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.config_io import load_config
from tusi.models.hub import resolve_model
from tusi.models.memory_estimate import estimate_memory
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.pack import find_packed, load_packed
from tusi.models.parameters import Progress, choose_format
from tusi.models.random_checkpoint import write_random_checkpoint
from tusi.processing.cache import MediaCache
from tusi.processing.limits import MediaLimits
from tusi.processing.processor import MediaTokenIds, Processor

logger = logging.getLogger(__name__)

RANDOM_MODEL = "random"
"""The name that stands for a tiny checkpoint with random weights, written on the spot."""

# Ends every turn in the prompt's format. The model learnt to write </s> there; some quantized copies write this.
_END_OF_SENTENCE = "<|end_of_sentence|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """All of a checkpoint but its weights: what turns messages into prompts and tokens into text."""

    name: str
    config: Ernie4_5_VLMoeConfig
    tokenizer: Tokenizer
    template: ChatTemplate
    processor: Processor
    eos_token_ids: tuple[int, ...]
    default_sampling_params: SamplingParams


@contextmanager
def model_folder(name: str | Path) -> Iterator[Path]:
    """The folder of a model for as long as it takes to load it: local, pulled before, or made for "random"."""
    if str(name) != RANDOM_MODEL:
        yield resolve_model(str(name))
        return
    logger.warning('the model "random" has RANDOM WEIGHTS: it shows that the machinery works, its answers mean nothing')
    with tempfile.TemporaryDirectory(prefix="tusi-random-") as folder:
        yield write_random_checkpoint(Path(folder) / "checkpoint")


def load_frontend(
    folder: Path, *, name: str, media_limits: MediaLimits | None = None, media_cache: MediaCache | None = None
) -> Frontend:
    """Read everything but the weights. Raises CheckpointError."""
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    generation = GenerationConfig.from_pretrained(folder)
    ends = (tokenizer.eos_token_id, tokenizer.token_to_id(_END_OF_SENTENCE))
    eos_token_ids = (*config.eos_token_id, *generation.eos_token_ids, *(i for i in ends if i is not None))
    return Frontend(
        name=name,
        config=config,
        tokenizer=tokenizer,
        template=ChatTemplate.from_pretrained(folder),
        processor=Processor.from_pretrained(
            folder, tokenizer, token_ids=media_token_ids(config), limits=media_limits, cache=media_cache
        ),
        eos_token_ids=tuple(dict.fromkeys(eos_token_ids)),
        default_sampling_params=generation.sampling_params,
    )


def load_weights(
    folder: Path,
    *,
    dtype: WeightFormatChoice,
    engine_config: EngineConfig,
    weight_memory: WeightMemory | None = None,
    activations: Activations | None = None,
    progress: Progress | None = None,
) -> Ernie4_5_VLMoeForConditionalGeneration:
    """Read the weights, from a packed file if there is one. weight_memory None: what TUSI_WEIGHT_MEMORY says.

    activations: what products over integer weights do with their input; None: round it to eight bits.

    Raises ConfigError if they and the KV cache do not fit here, if memory is to be mapped and nothing is packed, or if
    activations cannot be as asked; CheckpointError if they are unsound.
    """
    config = load_config(folder)
    memory = _choose_memory(weight_memory)
    packed = find_packed(folder, dtype)
    if packed is not None:
        check_activations(activations, packed.about["format"])
        weights = packed.num_bytes if memory == "anonymous" else 0
        require_memory(folder.name, config, packed.about["format"], engine_config, weights_bytes=weights)
        return load_packed(folder, packed, memory=memory, activations=activations, progress=progress)
    weight_format = choose_format(config, dtype)
    if memory == "mmap":
        raise ConfigError(
            f"weights are to be mapped (--weight-memory, TUSI_WEIGHT_MEMORY), and {folder.name} has no packed file for "
            f"{weight_format} that is up to date. Make it with `tusi pack {folder} --dtype {weight_format}`, "
            "or let weights be read (anonymous)."
        )
    check_activations(activations, weight_format)
    require_memory(folder.name, config, weight_format, engine_config)
    return Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(
        folder, weight_format, activations=activations or "int8", progress=progress
    )


def _choose_memory(asked: WeightMemory | None) -> WeightMemory:
    if asked not in (None, *get_args(WeightMemory)):
        raise ConfigError(f"weight_memory is {asked!r}; choose one of {', '.join(get_args(WeightMemory))}.")
    return asked or TUSI_WEIGHT_MEMORY.get()  # type: ignore[return-value]  # its parser checked


def check_activations(asked: Activations | None, weight_format: WeightFormat) -> None:
    """Raise ConfigError if products over weights of this format cannot take their input as is asked."""
    if asked not in (None, *get_args(Activations)):
        raise ConfigError(f"activations are {asked!r}; choose one of {', '.join(get_args(Activations))}.")
    if asked == "int8" and weight_format in ("fp32", "bf16"):
        raise ConfigError(
            f"activations are to be rounded to int8, and the weights are {weight_format}: only products over integer "
            "weights do that. Choose a dtype of int8 or int4, or leave activations out."
        )


def require_memory(
    name: str,
    config: Ernie4_5_VLMoeConfig,
    weight_format: WeightFormat,
    engine_config: EngineConfig,
    *,
    weights_bytes: int | None = None,
) -> None:
    """Raise ConfigError, with advice, if weights, KV cache and a step's work do not fit into what is free here.

    weights_bytes: what the weights take, if that is known better than by their shape.
    """
    estimate = estimate_memory(config, weight_format, context=0, batched_tokens=engine_config.max_num_batched_tokens)
    weights_bytes = estimate.weights_total if weights_bytes is None else weights_bytes
    needed = estimate.fixed_without_weights + weights_bytes + _kv_cache_bytes(config, engine_config)
    available = machine.memory().available
    if available is not None and needed > available:
        raise ConfigError(
            f"{name} in {weight_format} with max_model_len {engine_config.max_model_len} takes "
            f"{needed / 2**30:.1f} GiB of memory ({weights_bytes / 2**30:.1f} of it weights), and "
            f"{available / 2**30:.1f} GiB are free here. Choose a smaller dtype (int8, int4), max_model_len or "
            f"kv_cache_dtype (int8), close other programs, or see what fits with `tusi fit`."
        )


def with_model_len(
    engine_config: EngineConfig, max_model_len: int | None, config: Ernie4_5_VLMoeConfig
) -> EngineConfig:
    """The engine's limits with max_model_len settled. Raises ConfigError if it is more than the model was made for."""
    longest = config.text_config.max_position_embeddings
    if max_model_len is None:
        return replace(engine_config, max_model_len=min(engine_config.max_model_len, longest))
    if max_model_len > longest:
        raise ConfigError(
            f"max_model_len is {max_model_len}, and the model was made for {longest} tokens (max_position_embeddings). "
            f"Choose {longest} or less."
        )
    return replace(engine_config, max_model_len=max_model_len)


def _kv_cache_bytes(config: Ernie4_5_VLMoeConfig, engine_config: EngineConfig) -> int:
    text = config.text_config
    shape = KVCacheShape(
        num_hidden_layers=text.num_hidden_layers,
        num_key_value_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
    )
    return resolve_num_blocks(engine_config, shape) * shape.bytes_per_block(engine_config)


def media_token_ids(config: Ernie4_5_VLMoeConfig) -> MediaTokenIds:
    """The ids that the processor needs, out of the model's configuration."""
    return MediaTokenIds(
        image_token_id=config.image_token_id,
        video_token_id=config.video_token_id,
        image_start_token_id=config.image_start_token_id,
        image_end_token_id=config.image_end_token_id,
        video_start_token_id=config.video_start_token_id,
        video_end_token_id=config.video_end_token_id,
    )
