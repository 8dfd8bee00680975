"""Where batches come from: the procedural world, sample i always the same, so that a resumed run sees no other.

A recipe's sources are mixed by weight; the hardest allowed difficulty rises over `ramp_steps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tusi.chat.messages import Message, TextPart
from tusi.chat.prompt import MediaSegment
from tusi.chat.tokenizer import Tokenizer
from tusi.core.errors import ConfigError
from tusi.tasks.world.cells import cell_targets, cell_words
from tusi.tasks.world.dense import DenseScene, dense_scene
from tusi.tasks.world.generate import FAMILIES, generate
from tusi.tasks.world.lookup import lookup_turns
from tusi.tasks.world.messages import media_part, sample_to_messages
from tusi.tasks.world.sample import Clip, Language, ObjectAnnotation, Pixels, TextAnnotation
from tusi.tasks.world.splits import Split
from tusi.train.collate import Batch, CellBatch, TokenIds, collate
from tusi.train.echo import echo_conversation
from tusi.train.encode import IGNORE, Conversation, Encoder, PromptProcessor
from tusi.train.recipe import DataSection, SourceSection
from tusi.train.told import told_conversation

DENSE = "dense"
ECHO = "echo"
"""Lists to repeat and to look up in (`echo`)."""
LOOKUP = "lookup"
"""Dense pictures again, with nothing but lookups: no caption that they could be copied from."""
SPARSE = "sparse"
"""Dense questions about a picture of one or two things: what a decoder learns to look with."""
SPARSE_OBJECTS = 2
MERGE = 2
"""Patches that a merged cell is wide."""


class ConversationSource:
    """Batches of conversations: dense pictures with many questions, and the families' expert traces."""

    def __init__(
        self,
        data: DataSection,
        encoder: Encoder,
        ids: TokenIds,
        *,
        seed: int,
        split: Split,
        ramp_batches: int,
        pixels: torch.dtype = torch.float32,
    ) -> None:
        _refuse_unknown(data.sources, {DENSE, ECHO, LOOKUP, SPARSE, *FAMILIES})
        _refuse_told(source for source in data.sources if source.task not in FAMILIES)
        self._data = data
        self._encoder = encoder
        self._ids = ids
        self._pixels = pixels
        self._seed = seed
        self._split = split
        self._ramp_batches = ramp_batches

    def batch(self, index: int) -> Batch:
        """Batch number index."""
        size = self._data.samples_per_batch
        conversations = (self.conversation(index * size + row, index) for row in range(size))
        examples = [self._encoder.encode(conversation) for conversation in conversations]
        return collate(examples, self._ids, self._pixels)

    def conversation(self, number: int, batch_index: int) -> Conversation:
        """Sample `number` as it is drawn in this batch."""
        rng = np.random.default_rng([self._seed, number])
        source = _drawn_source(self._data.sources, rng)
        difficulty = _drawn_difficulty(source, rng, batch_index, self._ramp_batches)
        language: Language = source.languages[int(rng.integers(len(source.languages)))]
        if source.task == ECHO:
            return echo_conversation(number, difficulty, language, split=self._split)
        if source.task == LOOKUP:
            scene = dense_scene(number, difficulty, language, split=self._split, num_turns=1)
            turns = lookup_turns(scene, number, language, split=self._split)
            return dense_conversation(replace(scene, turns=turns))
        if source.task in (DENSE, SPARSE):
            most = SPARSE_OBJECTS if source.task == SPARSE else None
            return dense_conversation(dense_scene(number, difficulty, language, split=self._split, max_objects=most))
        sample = generate(source.task, difficulty, language, number, self._split)
        if source.is_told:
            return told_conversation(sample)
        messages, tools = sample_to_messages(sample)
        return Conversation(messages=(*messages, *sample.trace), tools=tuple(tools))


@dataclass(frozen=True, slots=True)
class _Annotated:
    """A picture and what is known to stand in it; is_complete if nothing else does."""

    pixels: Pixels
    objects: tuple[ObjectAnnotation, ...]
    texts: tuple[TextAnnotation, ...]
    is_complete: bool


class CellSource:
    """Batches of pictures with what stands in each merged cell: dense pictures and those of the families."""

    def __init__(
        self,
        data: DataSection,
        processor: PromptProcessor,
        tokenizer: Tokenizer,
        *,
        seed: int,
        split: Split,
        ramp_batches: int,
    ) -> None:
        _refuse_unknown(data.sources, {DENSE, *FAMILIES} - {"video"})
        _refuse_told(data.sources)
        self._tokenizer = tokenizer
        self._data = data
        self._processor = processor
        self._seed = seed
        self._split = split
        self._ramp_batches = ramp_batches

    def batch(self, index: int) -> CellBatch:
        """Batch number index."""
        size = self._data.samples_per_batch
        pictures = [self._picture(index * size + row, index) for row in range(size)]
        prompt = self._processor.process([MediaSegment(media_part(picture.pixels)) for picture in pictures])
        targets, words = [], list[tuple[str, ...]]()
        for picture, item in zip(pictures, prompt.media, strict=True):
            rows, columns = (side // MERGE for side in item.grid_thw[1:])
            known = (picture.objects, picture.texts, rows, columns)
            targets.append(cell_targets(*known, is_complete=picture.is_complete))
            words += cell_words(*known)
        inputs = {
            "pixel_values": torch.from_numpy(np.concatenate([item.pixel_values for item in prompt.media])),
            "image_grid_thw": torch.tensor([item.grid_thw for item in prompt.media]),
        }
        return CellBatch(
            inputs, torch.from_numpy(np.concatenate(targets)), self._word_ids(words), num_samples=len(pictures)
        )

    def _word_ids(self, words: Sequence[tuple[str, ...]]) -> torch.Tensor:
        """[C, W] ids of the tokens that each cell's words begin or go on with, as a first word and after a space."""
        # A thing covers many cells: its words are encoded once.
        spelt = {
            cell: sorted({i for word in cell for text in _spellings(word) for i in self._tokenizer.encode(text)})
            for cell in set(words)
        }
        ids = [spelt[cell] for cell in words]
        ids_CW = np.full((len(ids), max(map(len, ids))), IGNORE, np.int64)
        for row, found in enumerate(ids):
            ids_CW[row, : len(found)] = found
        return torch.from_numpy(ids_CW)

    def _picture(self, number: int, batch_index: int) -> _Annotated:
        rng = np.random.default_rng([self._seed, number])
        source = _drawn_source(self._data.sources, rng)
        difficulty = _drawn_difficulty(source, rng, batch_index, self._ramp_batches)
        if source.task == DENSE:
            scene = dense_scene(number, difficulty, "en", split=self._split, num_turns=1)
            return _Annotated(scene.pixels, scene.objects, scene.texts, is_complete=True)
        sample = generate(source.task, difficulty, "en", number, self._split)
        (pixels,) = sample.media
        assert not isinstance(pixels, Clip), "sources with clips are refused"
        # Bars, lines and gears are in no annotation.
        return _Annotated(pixels, sample.objects, sample.texts, is_complete=False)


def _spellings(word: str) -> tuple[str, ...]:
    return (word, f" {word}") if word[0].isalpha() else (word,)


def dense_conversation(scene: DenseScene) -> Conversation:
    """All questions of a picture as one conversation; the picture comes with the first."""
    messages: list[Message] = []
    for turn in scene.turns:
        media = () if messages else (media_part(scene.pixels),)
        messages.append(Message(role="user", content=(*media, TextPart(turn.question))))
        messages.append(Message(role="assistant", content=(TextPart(turn.answer),)))
    return Conversation(messages=tuple(messages))


def _refuse_unknown(sources: Sequence[SourceSection], known: set[str]) -> None:
    unknown = sorted({source.task for source in sources} - known)
    if unknown:
        raise ConfigError(
            f"data.sources name {', '.join(unknown)}; there are {', '.join(sorted(known))}. Name one of these."
        )


def _refuse_told(sources: Iterable[SourceSection]) -> None:
    told = sorted({source.task for source in sources if source.is_told})
    if told:
        raise ConfigError(
            f"data.sources: {', '.join(told)} cannot be told in words here; only a family's traces can. Remove is_told."
        )


def _drawn_source(sources: Sequence[SourceSection], rng: np.random.Generator) -> SourceSection:
    weights = np.array([source.weight for source in sources])
    return sources[int(rng.choice(len(sources), p=weights / weights.sum()))]


def _drawn_difficulty(source: SourceSection, rng: np.random.Generator, batch_index: int, ramp_batches: int) -> int:
    progress = min(1.0, (batch_index + 1) / ramp_batches) if ramp_batches else 1.0
    hardest = source.min_difficulty + round(progress * (source.max_difficulty - source.min_difficulty))
    return int(rng.integers(source.min_difficulty, hardest + 1))
