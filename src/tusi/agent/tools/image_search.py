"""`image_search`: pictures that look like one of the conversation, with what is known of them.

Where it searches is a provider's matter: an index of one's own pictures, or a service over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tusi.agent.index.pictures import PictureIndex
from tusi.agent.tool import ConversationMedia, Origin, check_arguments, chosen_index, chosen_picture
from tusi.chat.messages import ImagePart, Part, TextPart
from tusi.chat.tool_schemas import IMAGE_SEARCH, ToolSchema
from tusi.core.errors import UnsupportedMedia
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture

MAX_PICTURES = 3
_DEFAULT_LIMITS = MediaLimits()


@dataclass(frozen=True, slots=True)
class SearchHit:
    """Something found. picture: an encoded picture to show, if there is one; source: where it is from."""

    caption: str
    source: str = ""
    picture: bytes | None = None


class ImageSearchProvider(Protocol):
    """Something that finds pictures. Several threads may search at once."""

    def search(self, picture: Image.Image, limit: int) -> list[SearchHit]:
        """At most limit hits, best first. Raises TusiError with a message for the model."""
        ...


class IndexProvider:
    """Searches an index that `tusi index images` made."""

    def __init__(self, index: PictureIndex) -> None:
        self._index = index

    def search(self, picture: Image.Image, limit: int) -> list[SearchHit]:
        """See the protocol."""
        return [
            SearchHit(f"{hit.caption} (likeness {hit.likeness:.2f})", hit.source, hit.thumbnail)
            for hit in self._index.search(picture, limit=limit)
        ]


class ImageSearch:
    """Shows what a provider found. limits: what opening pictures, theirs and the conversation's, may cost."""

    name = "image_search"
    schema: ToolSchema = IMAGE_SEARCH

    def __init__(
        self, provider: ImageSearchProvider, limits: MediaLimits = _DEFAULT_LIMITS, *, max_pictures: int = MAX_PICTURES
    ) -> None:
        self._provider, self._limits, self._max_pictures = provider, limits, max_pictures

    def call(self, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        """Captions, each followed by its picture (uint8 RGB [H, W, 3]). Raises ToolError or another TusiError."""
        check_arguments(arguments, required=("img_idx",))
        part = chosen_picture(media, arguments["img_idx"])
        hits = self._provider.search(open_picture(part.source, self._limits), self._max_pictures)
        if not hits:
            return (TextPart("no similar picture found"),)
        return tuple(part for number, hit in enumerate(hits, start=1) for part in self._shown(number, hit))

    def origin(self, arguments: Mapping[str, Any], media: ConversationMedia) -> Origin:
        """The picture that is searched for. Raises ToolError."""
        return Origin(chosen_index(media, arguments.get("img_idx")))

    def _shown(self, number: int, hit: SearchHit) -> tuple[Part, ...]:
        text = TextPart(f"[{number}] {hit.caption}{f', {hit.source}' if hit.source else ''}\n")
        if hit.picture is None:
            return (text,)
        try:
            return text, ImagePart(np.asarray(open_picture(hit.picture, self._limits)))
        except UnsupportedMedia as error:  # a service may send anything; the captions are worth having all the same
            return (TextPart(f"{text.text}(its picture cannot be shown: {error})\n"),)
