"""What is learnt is what the model must write when it is served, token for token, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tusi.backends.local.loading import Frontend, load_frontend
from tusi.chat.messages import ImagePart, Message, TextPart, ToolCall
from tusi.chat.tool_schemas import TOOL_SCHEMAS
from tusi.core.errors import ConfigError, RequestError
from tusi.tasks.world.atlas import load_concepts
from tusi.tasks.world.cells import cell_classes, target_sizes
from tusi.tasks.world.generate import FAMILIES, generate
from tusi.tasks.world.messages import sample_to_messages
from tusi.tasks.world.wording import Words
from tusi.train.collate import TokenIds
from tusi.train.encode import IGNORE, Conversation, Encoder, TrainExample
from tusi.train.recipe import DataSection
from tusi.train.sources import CellSource, ConversationSource

BASE = Path(__file__).parents[2] / "recipes" / "tusi-mini" / "base"
PICTURE = ImagePart(np.full((56, 84, 3), 90, np.uint8))
CROP = ImagePart(np.full((56, 56, 3), 200, np.uint8))
CALL = ToolCall("call_0", "image_zoom_in_tool", '{"bbox_2d": [0, 0, 500, 500]}')
TRACE = (
    Message(role="user", content=(PICTURE, TextPart("What is it?"))),
    Message(role="assistant", reasoning="Too small.", tool_calls=(CALL,)),
    Message(role="tool", content=(CROP, TextPart("a crop")), tool_call_id="call_0"),
    Message(role="assistant", reasoning="Now I see.", content=(TextPart("A cat."),)),
)


@pytest.fixture(scope="module")
def frontend() -> Frontend:
    return load_frontend(BASE, name="base")


@pytest.fixture(scope="module")
def encoder(frontend: Frontend) -> Encoder:
    return Encoder(frontend.template, frontend.processor, frontend.tokenizer, max_tokens=4000)


def learnt_text(frontend: Frontend, example: TrainExample) -> list[str]:
    """The learnt tokens as text, run by run."""
    is_learnt = example.labels != IGNORE
    starts = np.flatnonzero(is_learnt & ~np.concatenate([[False], is_learnt[:-1]]))
    ends = np.flatnonzero(is_learnt & ~np.concatenate([is_learnt[1:], [False]])) + 1
    return [frontend.tokenizer.decode(example.labels[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]


def test_reasoning_calls_answers_and_ends_are_learnt_tool_results_are_not(frontend: Frontend, encoder: Encoder) -> None:
    tools = (TOOL_SCHEMAS["image_zoom_in_tool"],)
    example = encoder.encode(Conversation(messages=TRACE, tools=tools))
    first, second = learnt_text(frontend, example)
    assert first.startswith("Too small.\n</think>\n\n<tool_call>\n")
    assert first.endswith("</tool_call>\n</s>")
    assert second == "Now I see.\n</think>\n\nA cat.</s>"
    assert [item.original_size for item in example.prompt.media] == [(84, 56), (56, 56)]


def test_each_turn_is_learnt_after_exactly_what_serving_would_send(frontend: Frontend, encoder: Encoder) -> None:
    tools = (TOOL_SCHEMAS["image_zoom_in_tool"],)
    example = encoder.encode(Conversation(messages=TRACE, tools=tools))
    for count in (1, 3):
        rendered = frontend.template.render(TRACE[:count], tools)
        served = frontend.processor.process(rendered.segments).input_ids
        assert example.prompt.input_ids[: len(served)] == served
        assert example.labels[len(served) - 1] == IGNORE
        assert example.labels[len(served)] != IGNORE


def test_a_turn_without_a_thought_learns_no_empty_thought(frontend: Frontend, encoder: Encoder) -> None:
    messages = (TRACE[0], Message(role="assistant", content=(TextPart("A cat."),)))
    assert learnt_text(frontend, encoder.encode(Conversation(messages=messages))) == ["A cat.</s>"]


def test_too_long_and_nothing_to_learn_are_refused(frontend: Frontend, encoder: Encoder) -> None:
    short = Encoder(frontend.template, frontend.processor, frontend.tokenizer, max_tokens=20)
    with pytest.raises(RequestError, match=r"more than data.max_tokens \(20\)"):
        short.encode(Conversation(messages=TRACE))
    with pytest.raises(RequestError, match="no assistant turn"):
        encoder.encode(Conversation(messages=TRACE[:1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_the_world_can_be_learnt(frontend: Frontend, encoder: Encoder, family: str) -> None:
    for seed in range(4):
        sample = generate(family, 1 + seed, ("en", "zh")[seed % 2], seed)  # type: ignore[arg-type]
        messages, tools = sample_to_messages(sample)
        example = encoder.encode(Conversation(messages=(*messages, *sample.trace), tools=tools))
        runs = learnt_text(frontend, example)
        assert len(runs) == sum(message.role == "assistant" for message in sample.trace)
        assert runs[-1].endswith(f"</think>\n\n{sample.answer}</s>")
        assert all(item.length <= 36 * 8 for item in example.prompt.media)


def data(*tasks: str) -> DataSection:
    return DataSection.model_validate({"sources": [{"task": task} for task in tasks], "samples_per_batch": 3})


def test_a_batch_is_a_function_of_its_number(frontend: Frontend, encoder: Encoder) -> None:
    def source(seed: int) -> ConversationSource:
        ids = TokenIds(image=frontend.config.image_token_id, video=frontend.config.video_token_id)
        return ConversationSource(data("dense", "grounding"), encoder, ids, seed=seed, split="train", ramp_batches=0)

    first, again, other = source(1).batch(5), source(1).batch(5), source(2).batch(5)
    assert all(np.array_equal(first.inputs[name], again.inputs[name]) for name in first.inputs)
    assert np.array_equal(first.labels_T, again.labels_T)
    assert not np.array_equal(first.labels_T, other.labels_T)


@pytest.mark.parametrize("task", ["dense", "stem", "zoom"])
def test_cells_match_the_tokens_of_their_pictures(frontend: Frontend, task: str) -> None:
    source = CellSource(data(task), frontend.processor, frontend.tokenizer, seed=1, split="train", ramp_batches=0)
    batch = source.batch(0)
    assert batch.labels_CL.shape == (batch.inputs["image_grid_thw"].prod(dim=1).sum() // 4, len(target_sizes()))
    assert batch.num_samples == 3
    assert 0 < batch.num_targets <= batch.labels_CL.numel()


def test_the_words_of_a_cell_name_its_object_in_both_languages(frontend: Frontend) -> None:
    source = CellSource(data("dense"), frontend.processor, frontend.tokenizer, seed=1, split="train", ramp_batches=0)
    batch = source.batch(0)
    classes = batch.labels_CL[:, 0].tolist()
    row = next(i for i, c in enumerate(classes) if c > 0 and cell_classes()[c] in load_concepts())
    concept = cell_classes()[classes[row]]
    ids = set(batch.words_CW[row].tolist()) - {IGNORE}
    for text in (f" {Words('en').name(concept)}", Words("zh").name(concept)):
        assert set(frontend.tokenizer.encode(text)) <= ids
    assert (batch.words_CW[classes.index(0)] == IGNORE).all()


def test_cells_are_of_pictures_only(frontend: Frontend) -> None:
    with pytest.raises(ConfigError, match=r"data.sources name video; there are dense, grounding, reasoning"):
        CellSource(data("video"), frontend.processor, frontend.tokenizer, seed=1, split="train", ramp_batches=0)


def test_an_unknown_task_is_named_with_those_there_are(encoder: Encoder) -> None:
    with pytest.raises(
        ConfigError, match=r"data.sources name chess; there are dense, echo, grounding, lookup, reasoning, sparse"
    ):
        ConversationSource(data("chess"), encoder, TokenIds(image=1, video=2), seed=1, split="train", ramp_batches=0)
