"""The zoom tool: crops come from the original, and a wrong call is never answered with a whole picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tusi.agent.tool import ConversationMedia, ToolRunner
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.chat.messages import ImagePart, Part, TextPart, ToolCall, VideoPart
from tusi.processing.limits import MediaLimits

GRADIENT_HW3 = np.zeros((1000, 2000, 3), np.uint8)
GRADIENT_HW3[..., 0] = (np.arange(2000) // 8)[None, :]
GRADIENT_HW3[..., 1] = (np.arange(1000) // 4)[:, None]
GREY = ImagePart(np.full((300, 300, 3), 128, np.uint8))
VIDEO = VideoPart((np.zeros((56, 56, 3), np.uint8),), {"timestamps": (0.0,)})


def zoom(arguments: dict[str, Any], *media: ImagePart | VideoPart, **limits: Any) -> tuple[Part, ...]:
    runner = ToolRunner([ImageZoomInTool(MediaLimits(**limits))])
    return runner.run(ToolCall("c", "image_zoom_in_tool", json.dumps(arguments)), ConversationMedia(media))


def pixels(content: tuple[Part, ...]) -> Any:
    (part,) = content
    assert isinstance(part, ImagePart)
    return part.source


def test_the_box_is_in_thousandths_of_the_original() -> None:
    crop = pixels(zoom({"bbox_2d": [250, 500, 500, 1000], "label": "x"}, ImagePart(GRADIENT_HW3)))
    np.testing.assert_array_equal(crop, GRADIENT_HW3[500:1000, 500:1000])


def test_coordinates_are_clamped_and_small_crops_enlarged() -> None:
    crop = pixels(zoom({"bbox_2d": [-50, -9, 10, 20]}, ImagePart(GRADIENT_HW3)))
    assert crop.shape[0] * crop.shape[1] >= 224 * 224 * 0.98
    assert crop[..., 0].max() <= 28 // 8


@pytest.mark.parametrize("index", [1, 1.0])
def test_a_picture_of_several_is_chosen_by_index(index: float) -> None:
    crop = pixels(zoom({"bbox_2d": [0, 0, 1000, 1000], "img_idx": index}, GREY, ImagePart(GRADIENT_HW3)))
    np.testing.assert_array_equal(crop, GRADIENT_HW3)


def test_videos_are_not_counted_as_pictures() -> None:
    assert pixels(zoom({"bbox_2d": [0, 0, 1000, 1000]}, VIDEO, GREY)).shape == (300, 300, 3)


def test_files_are_opened_within_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GRADIENT_HW3).save(path)
    crop = pixels(zoom({"bbox_2d": [0, 0, 500, 500]}, ImagePart(str(path))))
    np.testing.assert_array_equal(crop, GRADIENT_HW3[:500, :1000])
    (part,) = zoom({"bbox_2d": [0, 0, 500, 500]}, ImagePart(str(path)), allow_local_files=False)
    assert isinstance(part, TextPart)
    assert part.text.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "media", "advice"),
    [
        ({"bbox_2d": [0, 0, 500, 500]}, (), "the conversation has no picture"),
        ({"bbox_2d": [0, 0, 500, 500]}, (VIDEO,), "only 1 video(s); this tool works on pictures"),
        ({"bbox_2d": [0, 0, 500, 500]}, (GREY, GREY), "img_idx is missing; the conversation has 2 picture(s)"),
        ({"bbox_2d": [0, 0, 500, 500], "img_idx": 2}, (GREY, GREY), "give a whole number from 0 to 1"),
        ({"bbox_2d": [0, 0, 500, 500], "img_idx": -1}, (GREY,), "give a whole number from 0 to 0"),
        ({"bbox_2d": [0, 0, 500, 500], "img_idx": 0.5}, (GREY,), "give a whole number"),
        ({"bbox_2d": [0, 0, 500, 500], "img_idx": True}, (GREY,), "give a whole number"),
        ({"bbox_2d": [0, 0, 500, 500], "img_idx": float("inf")}, (GREY,), "give a whole number"),
        ({"bbox_2d": [500, 500, 500, 900]}, (GREY,), "expected x1 < x2 and y1 < y2"),
        ({"bbox_2d": [1200, 0, 1300, 9]}, (GREY,), "holds no area inside the picture"),
        ({"bbox_2d": [1, 2, 3]}, (GREY,), "expected four finite numbers"),
        ({"bbox_2d": "all"}, (GREY,), "expected four finite numbers"),
        ({"label": "cat"}, (GREY,), "'bbox_2d' is missing; the arguments are: bbox_2d, label, img_idx"),
        ({"bbox_2d": [0, 0, 9, 9], "zoom": 2}, (GREY,), "there is no argument 'zoom'"),
    ],
)
def test_a_wrong_call_is_a_clear_error(
    arguments: dict[str, Any], media: tuple[ImagePart | VideoPart, ...], advice: str
) -> None:
    (part,) = zoom(arguments, *media)
    assert isinstance(part, TextPart)
    assert part.text.startswith("error: ")
    assert advice in part.text
