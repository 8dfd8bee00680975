"""The families' expert traces without pictures: what there is to see is told in words.

A picture costs most of a training step, and copying from a context, looking up in it and doing sums need none. A told
sample is a trace of a family whose pictures are replaced by text: the user's by a description from the annotations (or,
for what no annotation describes, by what the expert says that it saw), a tool's by what the expert says of it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tusi.chat.messages import Message, TextPart
from tusi.tasks.world.dense import caption
from tusi.tasks.world.messages import sample_to_messages
from tusi.tasks.world.sample import WorldSample
from tusi.tasks.world.wording import Words
from tusi.train.encode import Conversation

_UNKNOWN = frozenset({"image_search", "chain"})
"""Kinds whose picture is not to be recognised: nothing is told of it."""

_NOT_ANNOTATED = frozenset({"bar", "line", "pie", "balance", "gears", "ramps"})
"""Kinds whose annotations lack what the question is about."""

_SENTENCE_END = re.compile(r"(?<=\.) |(?<=。)")


def told_conversation(sample: WorldSample) -> Conversation:
    """The sample's question, description before it, and the expert's trace, in text alone."""
    (user,), tools = sample_to_messages(sample)
    described = "\n".join(filter(None, (_description(sample), sample.question)))
    turns = [
        _without_media(message, after) for message, after in zip(sample.trace, (*sample.trace[1:], None), strict=True)
    ]
    return Conversation(messages=(replace(user, content=(TextPart(described),)), *turns), tools=tools)


def _description(sample: WorldSample) -> str:
    if sample.kind in _UNKNOWN:
        return ""
    first = sample.trace[0].reasoning or ""
    if sample.kind in _NOT_ANNOTATED or sample.family in ("zoom", "video"):
        return _seen(first)
    if sample.family == "grounding":
        return _boxes(sample)
    return caption(sample)


def _boxes(sample: WorldSample) -> str:
    """Every object with its box: the answers of grounding are boxes."""
    words = Words(sample.language)
    return words.join(f"{words.full(thing)} {list(thing.bbox_2d)}" for thing in sample.objects)


def _without_media(message: Message, after: Message | None) -> Message:
    """A tool's pictures become what the next turn says of them."""
    if message.role != "tool" or all(isinstance(part, TextPart) for part in message.content):
        return message
    return replace(message, content=(TextPart(_seen((after.reasoning if after else None) or "")),))


def _seen(thought: str) -> str:
    """What a thought begins with: its first sentence, or all of a single one."""
    return _SENTENCE_END.split(thought, maxsplit=1)[0]
