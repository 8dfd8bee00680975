"""`tusi ask FILE... "question"`: one question, one answer."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tusi.agent.media import downloaded
from tusi.backends.protocol import Backend
from tusi.chat.messages import ImagePart, Message, TextPart, VideoPart
from tusi.cli import options
from tusi.cli.answering import Answer, answer, remarks, summary
from tusi.cli.drawing import shapes_as_json
from tusi.cli.media import split_arguments
from tusi.cli.output_files import OutputFiles
from tusi.cli.session import AnswerOptions, ModelOptions, make_request, media_kwargs, opened_backend, read_schema
from tusi.cli.tools import ToolChoice
from tusi.cli.writer import AnswerWriter, describe_result
from tusi.core.errors import RequestError
from tusi.processing.limits import MediaLimits


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar='FILE... "QUESTION"',
            help="Pictures and videos (path, URL, - for standard input), then the question.",
        ),
    ],
    model: options.Model = None,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KVCacheDtype = "auto",
    weight_memory: options.WeightMemory = None,
    activations: options.Activations = None,
    max_model_len: options.MaxModelLen = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    thinking: options.Thinking = None,
    thinking_budget: options.ThinkingBudget = None,
    thoughts: options.Thoughts = True,
    system: options.System = None,
    json_schema: options.SchemaFile = None,
    fps: options.Fps = None,
    max_frames: options.MaxFrames = None,
    max_pixels: options.MaxPixels = None,
    tools: options.Tools = None,
    index: options.Index = None,
    image_search_url: options.ImageSearchUrl = None,
    mcp: options.Mcp = None,
    trace: options.TraceFile = None,
    draw: options.OutputPicture = None,
    story: options.StoryPicture = None,
    font: options.Font = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of streaming text.")] = False,
    allow_private_addresses: options.AllowPrivate = False,
) -> None:
    """Ask one question about pictures and videos.

    The answer goes to standard output, all else to standard error. Exit code 1 if there is no answer.

    \b
    Examples:
      tusi ask photo.jpg "What is on the table?"
      tusi ask before.png after.png "What has changed?" --json
      tusi ask street.jpg "Box all cars, in JSON." --draw cars.png
      tusi ask map.png "Which street crosses Mill Lane?" --tools zoom --story story.png
      tusi ask clip.mp4 "When does the ball land?" --fps 4 --max-frames 64
    """
    media, question = split_arguments(words)
    limits = MediaLimits(allow_private_addresses=allow_private_addresses)
    choice = ToolChoice.of(
        tools, limits, index=index, image_search_url=image_search_url, mcp=mcp, has_schema=json_schema is not None
    )
    _refuse_options_without_use(media, fps=fps, max_frames=max_frames, max_pixels=max_pixels)
    files = OutputFiles(trace=trace, draw=draw, story=story, font=font)
    files.check(_images(media))
    answer_options = AnswerOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        thinking=thinking,
        thinking_budget=thinking_budget,
        json_schema=None if json_schema is None else read_schema(json_schema),
        mm_processor_kwargs=media_kwargs(fps, max_frames, max_pixels),
        show_thoughts=thoughts,
    )
    model_options = ModelOptions(
        model=model, dtype=dtype, kv_cache_dtype=kv_cache_dtype, weight_memory=weight_memory, activations=activations,
        max_model_len=max_model_len, allow_private_addresses=allow_private_addresses,
    )  # fmt: skip
    media = downloaded(media, limits)
    messages = make_messages(media, question, system)
    with choice, opened_backend(model_options) as backend:
        request = make_request(backend, messages, answer_options)
        offered = choice.tools(backend, messages, request.mm_processor_kwargs)
        result = answer(backend, request, offered, show=None if as_json else AnswerWriter(show_thoughts=thoughts))
    if as_json:
        print(json.dumps(as_json_object(backend, result, _images(media), limits), ensure_ascii=False, indent=2))
    _finish(result, remarks(result) + files.write(result, _images(media), limits), wants_summary=not as_json)


def _finish(result: Answer, lines: list[str], *, wants_summary: bool) -> None:
    if sys.stderr.isatty() and wants_summary:
        lines.append(summary(result))
    for line in lines:
        print(line, file=sys.stderr)
    if not result.choice.content:
        raise typer.Exit(1)


def _images(media: Sequence[ImagePart | VideoPart]) -> list[ImagePart]:
    return [part for part in media if isinstance(part, ImagePart)]


def make_messages(media: Sequence[ImagePart | VideoPart], question: str, system: str | None) -> tuple[Message, ...]:
    """The conversation: pictures and videos first, in their order, then the question."""
    user = Message(role="user", content=(*media, TextPart(question)))
    return (user,) if system is None else (Message(role="system", content=(TextPart(system),)), user)


def as_json_object(
    backend: Backend, result: Answer, images: Sequence[ImagePart], limits: MediaLimits
) -> dict[str, Any]:
    """The answer as --json prints it: the last turn, and in tool_calls what was called before it."""
    choice = result.choice
    return {
        "model": backend.model,
        "reasoning": choice.reasoning,
        "content": choice.content,
        "tool_calls": _tool_calls(result),
        "boxes": shapes_as_json(choice.content, images, limits),
        "finish_reason": choice.finish_reason,
        "thinking_truncated": choice.thinking_truncated,
        "usage": dataclasses.asdict(result.usage),
        "timings": {"ttft_s": round(result.ttft, 4), "e2e_latency_s": round(result.e2e_latency, 4)},
    }


def _tool_calls(result: Answer) -> list[dict[str, Any]]:
    """Every call with the thought that led to it and what the tool said."""
    said = iter(result.trace.tool_results)
    return [
        {"reasoning": choice.reasoning, **dataclasses.asdict(call), "result": describe_result(message.content)}
        for choice in (turn.choice for turn in result.trace.turns)
        for call, message in zip(choice.tool_calls, said, strict=False)
    ]


def _refuse_options_without_use(
    media: Sequence[ImagePart | VideoPart], *, fps: float | None, max_frames: int | None, max_pixels: int | None
) -> None:
    has_video = any(isinstance(part, VideoPart) for part in media)
    has_image = any(isinstance(part, ImagePart) for part in media)
    for name, value, has_use, kind in (
        ("--fps", fps, has_video, "video"),
        ("--max-frames", max_frames, has_video, "video"),
        ("--max-pixels", max_pixels, has_image, "picture"),
    ):
        if value is not None and not has_use:
            raise RequestError(f"{name} {value} has nothing to act on: there is no {kind}. Leave it out, or add one.")
