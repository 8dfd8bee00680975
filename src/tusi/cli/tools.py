"""Which tools a question is asked with: those of --tools or, without it, zoom for pictures too large to see whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tusi.agent.tool import Tool
from tusi.agent.toolbox import make_tools, parse_tool_names
from tusi.backends.protocol import Backend
from tusi.chat.messages import ImagePart, Message, VideoPart, iter_media
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits
from tusi.processing.media import read_picture_size
from tusi.processing.sources import open_source

ON_BY_ITSELF = "zoom"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """names None: zoom if a picture has more pixels than the model sees of it at once; otherwise exactly these."""

    names: tuple[str, ...] | None
    limits: MediaLimits
    _areas: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str | None, limits: MediaLimits, *, has_schema: bool = False) -> ToolChoice:
        """From the text of --tools. has_schema: the answer must follow a JSON schema. Raises ConfigError."""
        names = None if text is None else parse_tool_names(text)
        if has_schema and names:
            raise ConfigError(
                f"--json-schema holds whatever the model says to the schema, so that it cannot call --tools {text}. "
                "Leave one of them out."
            )
        return cls(() if has_schema else names, limits)

    def tools(
        self, backend: Backend, messages: Sequence[Message], mm_processor_kwargs: Mapping[str, Any]
    ) -> list[Tool]:
        """The tools for a conversation. Raises UnsupportedMedia for a picture that cannot be read."""
        if self.names is not None:
            return [*make_tools(self.names, limits=self.limits)]
        # A backend that does not run the model here may not know; then nothing is switched on by itself.
        budget = mm_processor_kwargs.get("image_max_pixels") or getattr(backend, "image_max_pixels", None)
        pictures = [part for part in iter_media(messages) if isinstance(part, ImagePart)]
        if budget is None or not any(self._area(part.source) > budget for part in pictures):
            return []
        return [*make_tools([ON_BY_ITSELF], limits=self.limits)]

    def _area(self, source: object) -> int:
        if not isinstance(source, str):
            return _area(source, self.limits)
        if source not in self._areas:
            self._areas[source] = _area(source, self.limits)
        return self._areas[source]


def downloaded(media: Iterable[ImagePart | VideoPart], limits: MediaLimits) -> tuple[ImagePart | VideoPart, ...]:
    """Pictures behind URLs as their bytes, so that tools and later turns need not fetch them again."""
    return tuple(_downloaded(part, limits) for part in media)


def _downloaded(part: ImagePart | VideoPart, limits: MediaLimits) -> ImagePart | VideoPart:
    is_url = isinstance(part.source, str) and part.source.lower().startswith(("http://", "https://"))
    if isinstance(part, VideoPart) or not is_url:
        return part
    with open_source(part.source, "image", limits) as file:
        return replace(part, source=file.read())


def _area(source: object, limits: MediaLimits) -> int:
    width, height = read_picture_size(source, limits)
    return width * height
