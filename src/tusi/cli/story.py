"""One picture that tells what the model did: the input with the boxes of its zooms and of its answer, the crops beside
it, thoughts, calls and answer under it.

In: a trace. Out: an RGB picture, and remarks on what could not be drawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tusi.agent.tool import ERROR_PREFIX
from tusi.agent.types import Trace
from tusi.chat.boxes import Box, find_shapes
from tusi.chat.messages import ImagePart, Message, TextPart, ToolCall, VideoPart, iter_media
from tusi.cli.story_panels import Panel, frames_panel, lay_out
from tusi.cli.text_blocks import Block, Colour, draw_blocks
from tusi.cli.writer import describe_result, one_line
from tusi.core.errors import ConfigError
from tusi.processing.crop import COORDINATE_RANGE
from tusi.processing.draw import Mark, draw_marks
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture
from tusi.processing.text_fonts import GAP, check_font

WIDTH, MARGIN = 1200, 24
_MAX_BESIDE = 0.6
_ZOOM_TOOL = "image_zoom_in_tool"
_ZOOM_COLOURS: tuple[Colour, ...] = ((230, 159, 0), (204, 121, 167), (213, 94, 0), (0, 114, 178))
_ANSWER_COLOURS: tuple[Colour, ...] = ((0, 158, 115), (86, 180, 233), (240, 228, 66))
_THOUGHT, _INK, _ERROR = (105, 105, 105), (20, 20, 20), (190, 30, 30)


@dataclass(frozen=True, slots=True)
class _Step:
    """A call with its result. zoom: its number among the zooms that worked, from 1, or 0."""

    call: ToolCall
    result: Message
    arguments: Mapping[str, Any]
    zoom: int

    @property
    def colour(self) -> Colour:
        return _ZOOM_COLOURS[(self.zoom - 1) % len(_ZOOM_COLOURS)] if self.zoom else (160, 160, 160)


def check_story(out: Path, font: Path | None) -> None:
    """Raise, before minutes are spent on an answer, if the story could not be drawn."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--story {out}: the picture is a PNG file. Give a name that ends in .png.")
    if not out.parent.is_dir():
        raise ConfigError(f"--story {out}: there is no folder {str(out.parent)!r}. Create it, or choose another.")
    if font is not None:
        check_font(font)


def write_story(trace: Trace, out: Path, limits: MediaLimits, font: Path | None = None) -> list[str]:
    """Draw the story into a PNG file; returns what the user should know. Raises ConfigError if it cannot be written."""
    story, notes = draw_story(trace, limits, font)
    try:
        story.save(out, format="PNG")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--story {out} cannot be written ({reason}). Choose another place.") from error
    return [*notes, f"The story is drawn: {out}"]


def draw_story(trace: Trace, limits: MediaLimits, font: Path | None = None) -> tuple[Image.Image, list[str]]:
    """The picture, WIDTH pixels wide, and remarks."""
    steps, room = list(_steps(trace)), WIDTH - 2 * MARGIN
    crops = list(_results(steps, limits))
    pictures = lay_out(_inputs(trace, steps, limits, font), crops, room, font)
    left = pictures.width + MARGIN if pictures else 0
    is_beside = not crops and left <= _MAX_BESIDE * room  # a narrow picture alone leaves room for the text
    text, num_missing = draw_blocks(list(_blocks(trace, steps)), room - left if is_beside else room, font)
    top = pictures.height + MARGIN if pictures and not is_beside else 0
    height = max(pictures.height if pictures else 0, top + text.height)
    story = Image.new("RGB", (WIDTH, height + 2 * MARGIN), (255, 255, 255))
    if pictures:
        story.paste(pictures, (MARGIN, MARGIN))
    story.paste(text, (MARGIN + (left if is_beside else 0), MARGIN + top))
    if not num_missing:
        return story, []
    return story, [
        f"{num_missing} characters stand as {GAP!r} in the story: no font here has them. Name one with --font "
        "(for Chinese: Noto Sans CJK, or WenQuanYi)."
    ]


def _steps(trace: Trace) -> Iterator[_Step]:
    zoom = 0
    for call, result in zip(trace.tool_calls, trace.tool_results, strict=False):
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError):
            arguments = {}
        worked = call.name == _ZOOM_TOOL and any(isinstance(part, ImagePart) for part in result.content)
        zoom += worked
        yield _Step(call, result, arguments if isinstance(arguments, dict) else {}, zoom if worked else 0)


def _inputs(trace: Trace, steps: Sequence[_Step], limits: MediaLimits, font: Path | None) -> list[Panel]:
    """What people sent, with boxes; drawn at the size at which it is shown, so that lines and tags can be read."""
    media = [*iter_media([message for message in trace.prompt if message.role != "tool"])]
    num_pictures = sum(isinstance(part, ImagePart) for part in media)
    marks = _marks(trace, steps, num_pictures)
    panels, index = [], 0
    for part in media:
        if isinstance(part, VideoPart):
            panels.append(frames_panel(part, limits))
            continue
        draw = partial(draw_marks, marks=marks.get(index, []), font=font, min_line=4, min_text=17)
        panels.append(Panel(open_picture(part.source, limits), finish=draw))
        index += 1
    return panels


def _marks(trace: Trace, steps: Sequence[_Step], num_pictures: int) -> dict[int, list[Mark]]:
    """Picture -> its boxes and points."""
    marks: dict[int, list[Mark]] = {}
    for step in steps:
        if step.zoom:
            x1, y1, x2, y2 = (min(max(value, 0), COORDINATE_RANGE) for value in step.arguments["bbox_2d"])
            index = int(step.arguments.get("img_idx") or 0)
            box = Box(bbox_2d=(x1, y1, x2, y2))
            marks.setdefault(index, []).append(Mark(box, f"zoom {step.zoom}", step.colour))
    shapes = find_shapes(trace.answer, num_images=max(1, num_pictures))
    for number, shape in enumerate(shapes, start=1):
        colour = _ANSWER_COLOURS[(number - 1) % len(_ANSWER_COLOURS)]
        mark = Mark(shape, shape.label or str(number), colour, fallback=str(number))
        marks.setdefault(shape.img_idx or 0, []).append(mark)
    return marks


def _results(steps: Sequence[_Step], limits: MediaLimits) -> Iterator[Panel]:
    for step in steps:
        for part in step.result.content:
            if isinstance(part, ImagePart):
                label = step.arguments.get("label")
                caption = f"zoom {step.zoom}{f': {one_line(label)}' if isinstance(label, str) else ''}"
                caption = caption if step.zoom else step.call.name
                yield Panel(open_picture(part.source, limits), caption=caption, frame=step.colour)


def _blocks(trace: Trace, steps: Sequence[_Step]) -> Iterator[Block]:
    questions = [message.text for message in trace.prompt if message.role == "user" and message.text]
    if questions:
        yield Block(label="question", text=questions[-1], size=22, colour=_INK, bar=(120, 120, 120))
    left = iter(steps)
    for turn in trace.turns[:-1]:
        yield from _thought(turn.choice.reasoning)
        for _ in turn.choice.tool_calls:
            step = next(left, None)
            if step is not None:
                yield from _call(step)
    last = trace.turns[-1].choice
    yield from _thought(last.reasoning)
    answer = last.content.strip() or "(no answer)"
    yield Block(label="answer", text=answer, size=24, colour=_INK, bar=_ANSWER_COLOURS[0], max_lines=40)


def _thought(reasoning: str | None) -> Iterator[Block]:
    if reasoning and reasoning.strip():
        yield Block(label="thought", text=reasoning, colour=_THOUGHT)


def _call(step: _Step) -> Iterator[Block]:
    label = f"zoom {step.zoom}" if step.zoom else "call"
    yield Block(label=label, text=f"{step.call.name} {one_line(step.call.arguments)}", bar=step.colour, max_lines=3)
    text = "\n".join(part.text for part in step.result.content if isinstance(part, TextPart))
    if text:
        colour = _ERROR if text.startswith(ERROR_PREFIX) else _INK
        yield Block(label="result", text=text, colour=colour, bar=step.colour, max_lines=8)
    elif not step.zoom:
        yield Block(label="result", text="; ".join(describe_result(step.result.content)), bar=step.colour)
