"""What `tusi quantize --calibration FILE` reads: conversations, as the model would see them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tusi.backends.local.loading import Frontend, load_frontend
from tusi.core.errors import ConfigError, RequestError
from tusi.models.calibration import CalibrationSamples
from tusi.processing.types import ProcessedPrompt
from tusi.train.conversations import read_conversations
from tusi.train.encode import Conversation


def calibration_samples(folder: Path, path: Path, limit: int) -> CalibrationSamples:
    """The first conversations of a file, for the model of a folder. Raises ConfigError, CheckpointError."""
    conversations = read_conversations(path, limit)
    frontend = load_frontend(folder, name=str(folder))
    digest = f"{hashlib.sha256(path.read_bytes()).hexdigest()}, the first {limit}"
    return CalibrationSamples(prompts=partial(_prompts, frontend, conversations, path), digest=digest)


def _prompts(frontend: Frontend, conversations: Sequence[Conversation], path: Path) -> Iterator[ProcessedPrompt]:
    longest = frontend.config.text_config.max_position_embeddings
    for number, conversation in enumerate(conversations, start=1):
        messages = conversation.messages
        try:
            rendered = frontend.template.render(
                messages, conversation.tools, add_generation_prompt=messages[-1].role != "assistant"
            )
            prompt = frontend.processor.process(rendered.segments)
        except RequestError as error:
            raise ConfigError(f"{path}, conversation {number}: {error}") from error
        if len(prompt.input_ids) > longest:
            raise ConfigError(
                f"{path}, conversation {number} has {len(prompt.input_ids)} tokens, and the model takes {longest}. "
                "Shorten it or remove it."
            )
        yield prompt
