"""Renders a conversation to one prompt by the checkpoint's own chat template, with a place for each picture or video.

`ChatTemplate.render` takes messages, gives a `RenderedPrompt`. What users and tools say stays text, whatever it spells
(`chat.control_text`). Knows no token ids and never opens a medium.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

from tusi.chat.control_text import ControlText, Span
from tusi.chat.jinja_sandbox import SandboxedTemplate
from tusi.chat.messages import ImagePart, Message, Part, TextPart, VideoPart, iter_media
from tusi.chat.prompt import MediaSegment, RenderedPrompt, TextSegment
from tusi.chat.tags import IMAGE_PLACEHOLDERS, THINK_OPEN, VIDEO_PLACEHOLDERS
from tusi.chat.template_files import DEFAULT, Variant, built_in, find_templates, guess_variant
from tusi.chat.template_kwargs import SWITCHES, check_template_kwargs
from tusi.chat.tokenizer_files import all_special, special_tokens
from tusi.core.errors import CheckpointError, RequestError

__all__ = ["ChatTemplate", "MediaSegment", "RenderedPrompt", "TextSegment"]

_PLACEHOLDERS = dict.fromkeys(IMAGE_PLACEHOLDERS, "image") | dict.fromkeys(VIDEO_PLACEHOLDERS, "video")
_OPEN_THINK_AT_END = re.compile(re.escape(THINK_OPEN) + r"\s*\Z")


class ChatTemplate:
    """A checkpoint's chat template, or several by name (`default`; `tool_use` is taken when tools are given).

    sources: Jinja sources by name. special_tokens: what the template sees as `bos_token`, `cls_token`, ...
    control_tokens: strings that only the template may write. raw_arguments: the template takes the arguments of tool
    calls as the JSON text that the model wrote, instead of as an object. now: the clock behind `strftime_now`.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        name: str = "chat_template",
        special_tokens: Mapping[str, str | list[str]] | None = None,
        control_tokens: Iterable[str] = (),
        raw_arguments: bool = False,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        if DEFAULT not in sources:
            raise CheckpointError(
                f"the chat template {name} has no template called {DEFAULT!r}, only {sorted(sources)}. One must be. "
                f"Rename one of them."
            )
        self._templates = {key: SandboxedTemplate(text, name=name, now=now) for key, text in sources.items()}
        self._special_tokens = dict(special_tokens or {})
        self._control_text = ControlText(control_tokens)
        self._raw_arguments = raw_arguments

    @classmethod
    def from_pretrained(cls, path: str | PathLike[str], *, variant: Variant | None = None) -> ChatTemplate:
        """Load the template of a checkpoint folder; the built-in one of the variant if the folder ships none.

        variant: "thinking" or "hybrid"; None goes by the checkpoint's name. Raises CheckpointError.
        """
        folder = Path(path)
        sources = find_templates(folder)
        name, source = str(folder), ""
        if not sources:
            name, source = built_in(variant or guess_variant(folder))
        return cls(
            sources or {DEFAULT: source},
            name=name,
            special_tokens=special_tokens(folder),
            control_tokens=all_special(folder),
            raw_arguments=not sources,
        )

    @classmethod
    def built_in(cls, variant: Variant = "thinking", *, now: Callable[[], datetime] = datetime.now) -> ChatTemplate:
        """The template that this package ships, without a checkpoint."""
        name, source = built_in(variant)
        return cls({DEFAULT: source}, name=name, raw_arguments=True, now=now)

    @property
    def can_switch_thinking(self) -> bool:
        """Whether a caller may ask for an answer without thoughts (`enable_thinking`)."""
        return bool(self._templates[DEFAULT].variables & set(SWITCHES))

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        add_generation_prompt: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Render a conversation. template_kwargs: variables for the template (`enable_thinking`, ...).

        Raises RequestError if the template refuses or fails, does not use a variable that was given, cannot show
        tools, or does not place each picture and video exactly once and in order.
        """
        if not messages:
            raise RequestError("there are no messages. A prompt needs at least one. Send one.", param="messages")
        template = self._templates.get("tool_use", self._templates[DEFAULT]) if tools else self._templates[DEFAULT]
        if tools and "tools" not in template.variables:
            raise RequestError(
                f"{len(tools)} tools were sent, but the chat template {template.name} never shows tools to the model. "
                f"Leave them out, or use a model whose template does.",
                param="tools",
            )
        image_type = "image_url" if "image_url" in template.source else "image"
        conversation = {
            "messages": [self._message(message, image_type) for message in messages],
            "tools": [dict(tool) for tool in tools],
            "kwargs": check_template_kwargs(dict(template_kwargs or {}), template, self._special_tokens),
        }
        shielded, shield = self._control_text.shield(conversation)
        rendered = template.render(
            {
                **self._special_tokens,
                **shielded["kwargs"],
                "messages": shielded["messages"],
                "tools": shielded["tools"] or None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            }
        )
        segments = _segments(shield.spans(rendered), list(iter_media(messages)), template.name)
        last = segments[-1] if segments else None
        opened = isinstance(last, TextSegment) and _OPEN_THINK_AT_END.search(last.text) is not None
        return RenderedPrompt(segments=segments, starts_in_reasoning=add_generation_prompt and opened)

    def _message(self, message: Message, image_type: str) -> dict[str, Any]:
        """A message in the shape that transformers' templates expect. Sources of media are not shown to templates."""
        content: str | list[dict[str, Any]] = message.text
        if any(not isinstance(part, TextPart) for part in message.content):
            content = [_part(part, image_type) for part in message.content]
        shaped: dict[str, Any] = {"role": message.role, "content": content}
        if message.reasoning is not None:
            shaped["reasoning_content"] = message.reasoning
        if message.tool_call_id is not None:
            shaped["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            shaped["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
                for call in message.tool_calls
                for arguments in [call.arguments if self._raw_arguments else _arguments(call.arguments)]
            ]
        return shaped


def _part(part: Part, image_type: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = image_type if isinstance(part, ImagePart) else image_type.replace("image", "video")
    return {"type": kind, kind: {"url": "media"} if kind.endswith("_url") else "media"}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _segments(
    spans: Sequence[Span], media: Sequence[ImagePart | VideoPart], template: str
) -> tuple[TextSegment | MediaSegment, ...]:
    placed = [kind for span in spans if (kind := _kind(span)) is not None]
    wanted = ["image" if isinstance(part, ImagePart) else "video" for part in media]
    if placed != wanted:
        raise RequestError(
            f"the conversation has the media {_listed(wanted)}, but the chat template {template} places "
            f"{_listed(placed)}. Each picture and video must be placed once, in order. Send media in user messages "
            f"only, or use a template that also places those of other roles.",
            param="messages",
        )
    rest = iter(media)
    segments: list[TextSegment | MediaSegment] = []
    for kind, run in itertools.groupby(spans, lambda span: "literal" if span.literal else _kind(span)):
        if kind in ("image", "video"):
            segments += [MediaSegment(next(rest)) for _ in run]
        else:
            segments.append(TextSegment("".join(span.text for span in run), literal=kind == "literal"))
    return tuple(segments)


def _kind(span: Span) -> str | None:
    """image, video, or None: ordinary text, or a control token of the template's own."""
    return _PLACEHOLDERS.get(span.text) if span.control and not span.literal else None


def _listed(kinds: Sequence[str]) -> str:
    shown = ", ".join(kinds[:8]) + (", ..." if len(kinds) > 8 else "")
    return f"[{shown}] ({len(kinds)})"
