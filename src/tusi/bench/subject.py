"""What is measured: a model on disk, or a shape with random weights made in memory. Refused if it does not fit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tusi.backends.local.loading import (
    check_activations,
    load_frontend,
    load_weights,
    media_token_ids,
    model_folder,
    require_memory,
)
from tusi.chat.tokenizer import load_tokenizer
from tusi.core.types import Activations, WeightFormat, WeightFormatChoice, WeightMemory
from tusi.engine.config import EngineConfig
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.parameters import Progress
from tusi.models.random_tokenizer import random_tokenizer_files
from tusi.models.random_weights import random_model
from tusi.models.shapes import named_shape
from tusi.processing.config import ProcessorConfig
from tusi.processing.processor import Processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and what makes prompts for it. load_seconds: to the point where it could answer."""

    name: str
    model: Ernie4_5_VLMoeForConditionalGeneration
    processor: Processor
    load_seconds: float


def load_subject(
    name: str,
    *,
    dtype: WeightFormatChoice,
    engine_config: EngineConfig,
    weight_memory: WeightMemory | None = None,
    activations: Activations | None = None,
    progress: Progress | None = None,
) -> Subject:
    """A folder or pulled model, from its packed file if it has one. Raises CheckpointError or ConfigError."""
    with model_folder(name) as folder:
        begin = time.perf_counter()
        frontend = load_frontend(folder, name=name)
        model = load_weights(
            folder,
            dtype=dtype,
            engine_config=engine_config,
            weight_memory=weight_memory,
            activations=activations,
            progress=progress,
        )
    return Subject(name=name, model=model, processor=frontend.processor, load_seconds=time.perf_counter() - begin)


def random_subject(
    shape: str,
    *,
    weight_format: WeightFormat,
    engine_config: EngineConfig,
    activations: Activations | None = None,
    progress: Progress | None = None,
) -> Subject:
    """A named shape with random weights; its tokenizer is a small one. Raises ConfigError."""
    config = named_shape(shape)
    check_activations(activations, weight_format)
    require_memory(f"the shape {shape}", config, weight_format, engine_config)
    begin = time.perf_counter()
    model = random_model(config, weight_format, activations=activations or "int8", progress=progress)
    seconds = time.perf_counter() - begin
    with _tokenizer_folder() as folder:
        tokenizer = load_tokenizer(folder)
    processor = Processor(ProcessorConfig(), tokenizer, token_ids=media_token_ids(config))
    return Subject(name=f"{shape}, random weights", model=model, processor=processor, load_seconds=seconds)


@contextmanager
def _tokenizer_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tusi-bench-") as name:
        for file, content in random_tokenizer_files()[0].items():
            (Path(name) / file).write_bytes(content)
        yield Path(name)
