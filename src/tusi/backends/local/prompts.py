"""Makes what a caller asks into what the engine takes: rendered, tokenised, media fetched and made into pixels.

Runs in the caller's thread, so that a slow download or a long video holds up nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tusi.backends.local.loading import Frontend
from tusi.backends.protocol import ChatRequest, ToolChoice, Usage
from tusi.chat.messages import ImagePart, VideoPart
from tusi.chat.prompt import MediaSegment, TextSegment
from tusi.chat.tags import IMAGE_PLACEHOLDERS, THINK_OPEN, VIDEO_PLACEHOLDERS
from tusi.core.errors import RequestError
from tusi.engine.request import MultiModalFeature, PlaceholderRange
from tusi.processing.positions import get_rope_index
from tusi.processing.types import MediaItem, ProcessedPrompt

_PLACEHOLDER = re.compile("|".join(map(re.escape, (*IMAGE_PLACEHOLDERS, *VIDEO_PLACEHOLDERS))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPrompt:
    """A prompt that is rendered already: text with a placeholder for each medium, the media in order a modality.

    Or token ids, without media. starts_in_reasoning None: found out from the end of the text.
    """

    text: str | None = None
    token_ids: Sequence[int] | None = None
    images: Sequence[ImagePart] = ()
    videos: Sequence[VideoPart] = ()
    mm_processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    starts_in_reasoning: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPrompt:
    """A prompt that is ready for the engine.

    text: for human eyes, None if it came as ids. limits_thinking: False leaves the reasoning without any budget.
    tools, tool_choice, parallel_tool_calls: as in the ChatRequest.
    """

    processed: ProcessedPrompt
    text: str | None
    starts_in_reasoning: bool
    tools_offered: bool
    limits_thinking: bool = True
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True

    @property
    def features(self) -> tuple[MultiModalFeature, ...]:
        """The media as the engine wants them."""
        return tuple(
            MultiModalFeature(
                mm_hash=item.mm_hash,
                modality=item.modality,
                position=PlaceholderRange(item.offset, item.length),
                data=item,
            )
            for item in self.processed.media
        )

    @property
    def usage(self) -> Usage:
        """The counts of the prompt alone."""
        media: tuple[MediaItem, ...] = self.processed.media
        return Usage(
            prompt_tokens=len(self.processed.input_ids),
            image_tokens=sum(item.length for item in media if item.modality == "image"),
            video_tokens=sum(item.length for item in media if item.modality == "video"),
        )


def prepare_chat(frontend: Frontend, request: ChatRequest) -> PreparedPrompt:
    """Render and process a conversation. Raises RequestError or UnsupportedMedia."""
    tools = [_without_strict(tool) for tool in request.tools]
    rendered = frontend.template.render(request.messages, tools, template_kwargs=request.template_kwargs)
    return PreparedPrompt(
        processed=frontend.processor.process(rendered.segments, mm_processor_kwargs=request.mm_processor_kwargs),
        text=rendered.text,
        starts_in_reasoning=rendered.starts_in_reasoning,
        tools_offered=bool(request.tools),
        tools=request.tools,
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
    )


def _without_strict(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool as the model was trained to see it."""
    function = tool.get("function")
    if not isinstance(function, Mapping) or "strict" not in function:
        return tool
    return {**tool, "function": {name: value for name, value in function.items() if name != "strict"}}


def prepare_text(frontend: Frontend, prompt: TextPrompt) -> PreparedPrompt:
    """Process a prompt that somebody else rendered. Tool calls in its completion are parsed."""
    if (prompt.text is None) == (prompt.token_ids is None):
        raise RequestError("a prompt is either text or token ids; give exactly one of the two.", param="prompt")
    if prompt.text is None:
        processed = _process_ids(prompt)
        tail = frontend.tokenizer.decode(processed.input_ids[-8:])
    else:
        segments = split_placeholders(prompt.text, prompt.images, prompt.videos)
        processed = frontend.processor.process(segments, mm_processor_kwargs=prompt.mm_processor_kwargs)
        tail = prompt.text
    starts = prompt.starts_in_reasoning
    return PreparedPrompt(
        processed=processed,
        text=prompt.text,
        starts_in_reasoning=tail.rstrip().endswith(THINK_OPEN) if starts is None else starts,
        tools_offered=True,
    )


def split_placeholders(
    text: str, images: Sequence[ImagePart], videos: Sequence[VideoPart]
) -> tuple[TextSegment | MediaSegment, ...]:
    """Cut rendered text at its placeholders and put the media there. Raises RequestError unless all find a place."""
    segments: list[TextSegment | MediaSegment] = []
    left: dict[str, list[ImagePart | VideoPart]] = {"images": [*images], "videos": [*videos]}
    found = {"images": 0, "videos": 0}
    start = 0
    for match in _PLACEHOLDER.finditer(text):
        kind = "images" if match.group() in IMAGE_PLACEHOLDERS else "videos"
        found[kind] += 1
        segments.append(TextSegment(text[start : match.start()]))
        if left[kind]:
            segments.append(MediaSegment(left[kind].pop(0)))
        start = match.end()
    segments.append(TextSegment(text[start:]))
    for kind, given in (("images", len(images)), ("videos", len(videos))):
        if found[kind] != given:
            raise RequestError(
                f"the prompt has {found[kind]} placeholders for {kind} and {given} {kind} are given; there must be as "
                f"many. Placeholders are {IMAGE_PLACEHOLDERS[0]} and {VIDEO_PLACEHOLDERS[0]}; apply_chat_template "
                f"writes them.",
                param=kind,
            )
    return tuple(segment for segment in segments if not isinstance(segment, TextSegment) or segment.text)


def count_placeholders(text: str) -> tuple[int, int]:
    """Placeholders for pictures and for videos in rendered text."""
    found = [match.group() in IMAGE_PLACEHOLDERS for match in _PLACEHOLDER.finditer(text)]
    return sum(found), len(found) - sum(found)


def _process_ids(prompt: TextPrompt) -> ProcessedPrompt:
    ids = tuple(prompt.token_ids or ())
    if prompt.images or prompt.videos:
        raise RequestError(
            "a prompt of token ids comes without media, for their number of placeholders is not known beforehand; "
            "give it as text with placeholders.",
            param="prompt_token_ids",
        )
    position_ids_3T, delta = get_rope_index(len(ids), ())
    types_T = np.zeros(len(ids), dtype=np.int32)
    return ProcessedPrompt(
        input_ids=ids,
        mm_token_type_ids=types_T,
        moe_mm_token_type_ids=types_T,
        position_ids=position_ids_3T,
        mrope_position_delta=delta,
        media=(),
    )
