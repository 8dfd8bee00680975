"""`image_zoom_in_tool`: a region of an original picture, enlarged. The arguments are those the model was trained with.

`img_idx` is our extension for conversations with several pictures; without it the only picture is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tusi.agent.tool import ConversationMedia, Origin, check_arguments, chosen_index, chosen_picture
from tusi.chat.messages import ImagePart, Part
from tusi.chat.tool_schemas import IMAGE_ZOOM_IN_TOOL, ToolSchema
from tusi.processing.crop import checked_bbox, crop_by_bbox
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture

_DEFAULT_LIMITS = MediaLimits()


class ImageZoomInTool:
    """Crops originals at their full resolution. limits: what opening a picture may cost, as for the prompt itself."""

    name = "image_zoom_in_tool"
    schema: ToolSchema = IMAGE_ZOOM_IN_TOOL

    def __init__(self, limits: MediaLimits = _DEFAULT_LIMITS) -> None:
        self._limits = limits

    def call(self, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        """The crop (uint8 RGB [H, W, 3]). Raises ToolError, RequestError or UnsupportedMedia."""
        check_arguments(arguments, required=("bbox_2d",), optional=("label", "img_idx"))
        part = chosen_picture(media, arguments.get("img_idx"))
        pixels_HW3 = np.asarray(open_picture(part.source, self._limits))
        return (ImagePart(crop_by_bbox(pixels_HW3, arguments["bbox_2d"])),)

    def origin(self, arguments: Mapping[str, Any], media: ConversationMedia) -> Origin:
        """The box as far as it lies in the picture. Raises ToolError or RequestError."""
        x1, y1, x2, y2 = checked_bbox(arguments.get("bbox_2d"))
        return Origin(chosen_index(media, arguments.get("img_idx")), (x1, y1, x2, y2))
