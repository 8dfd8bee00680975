"""The story: boxes lie where the model meant them, crops stand beside, nothing is drawn that did not happen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.fixtures.videos import make_video
from tests.fixtures.world_expert import expert_backend
from tusi.agent.loop import run_agent
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.agent.types import Trace
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.chat.messages import ImagePart, Message, Part, TextPart, ToolCall, VideoPart
from tusi.cli.story import MARGIN, WIDTH, draw_story
from tusi.evals.world import world_tasks
from tusi.processing import text_fonts
from tusi.processing.limits import MediaLimits

LIMITS = MediaLimits()
GROUND = (10, 20, 30)
ORANGE, PINK, GREEN = (230, 159, 0), (204, 121, 167), (0, 158, 115)


@pytest.fixture(autouse=True)
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_fonts, "WIDE_FONTS", ())


def zoom(arguments: str) -> FakeReply:
    return FakeReply(reasoning="Look.", tool_calls=(ToolCall("x", "image_zoom_in_tool", arguments),))


def told(replies: list[FakeReply], *media: Part) -> Trace:
    parts = media or (ImagePart(np.full((300, 600, 3), GROUND, np.uint8)),)
    asked = (Message(role="user", content=(*parts, TextPart("What?"))),)
    return run_agent(FakeBackend(replies), asked, [ImageZoomInTool()])


def places(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=2))
    assert len(rows), f"nothing is {colour}"
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_an_answers_box_lies_at_its_pixels() -> None:
    image, notes = draw_story(told([FakeReply(content='[{"bbox_2d": [250, 500, 750, 900]}]')]), LIMITS)
    assert not notes
    pictures = image.crop((MARGIN, MARGIN, WIDTH - MARGIN, MARGIN + 576))  # 600 x 300, shown at 1152 x 576
    assert np.asarray(pictures)[100, 100].tolist() == list(GROUND)
    left, _, right, bottom = places(pictures, GREEN)
    assert abs(left - 288) <= 2
    assert abs(right - 864) <= 2
    assert abs(bottom - 518) <= 2


def test_each_zoom_has_its_box_in_the_input_and_its_crop_beside_it() -> None:
    replies = [zoom('{"bbox_2d": [0, 0, 250, 500], "label": "left"}'), zoom('{"bbox_2d": [500, 500, 1200, 1000]}')]
    image, _ = draw_story(told([*replies, FakeReply(content="A cat.")]), LIMITS)
    left, right = image.crop((0, 0, 738, 360)), image.crop((754, 0, WIDTH, 700))
    width, height = 714, 357
    x1, y1, x2, y2 = places(left, ORANGE)
    assert max(abs(x1 - MARGIN), abs(y1 - MARGIN), abs(x2 - MARGIN - width // 4)) <= 3
    assert abs(y2 - MARGIN - height // 2) <= 3
    assert places(left, PINK)[2] <= MARGIN + width  # clamped to the picture
    assert places(right, ORANGE)[1] == MARGIN  # the first crop's frame
    assert places(right, PINK)[1] > places(right, ORANGE)[3]


def test_a_call_that_failed_is_text_and_no_box() -> None:
    image, _ = draw_story(told([zoom('{"bbox_2d": [5, 5, 5, 5]}'), zoom("[]"), FakeReply(content="A cat.")]), LIMITS)
    pixels = np.asarray(image)
    assert not (pixels == ORANGE).all(axis=2).any()
    assert (pixels == (190, 30, 30)).all(axis=2).any()


def test_what_no_font_has_is_told() -> None:
    _, notes = draw_story(told([FakeReply(reasoning="红色的猫", content="猫")]), LIMITS)
    assert notes == [
        "5 characters stand as '...' in the story: no font here has them. Name one with --font (for Chinese: Noto "
        "Sans CJK, or WenQuanYi)."
    ]


def test_videos_of_both_kinds_are_shown_by_their_frames(tmp_path: Path) -> None:
    frames = tuple(np.full((60, 80, 3), (0, 0, 20 * i), np.uint8) for i in range(12))
    given, _ = draw_story(told([FakeReply(content="A.")], VideoPart(frames, {"fps": 2.0})), LIMITS)
    path = tmp_path / "clip.mp4"
    path.write_bytes(make_video())
    read, _ = draw_story(told([FakeReply(content="A.")], VideoPart(str(path))), LIMITS)
    for image in (given, read):
        top = np.asarray(image)[MARGIN : MARGIN + 100]
        assert (top != 255).any(axis=2).mean() > 0.5


def test_without_media_the_text_stands_alone() -> None:
    image, _ = draw_story(told([FakeReply(content="Hi.")], TextPart("Hello")), LIMITS)
    assert image.width == WIDTH
    assert image.height < 200


def test_the_experts_of_the_world_can_all_be_told() -> None:
    for task in world_tasks(samples=2):
        backend = expert_backend([task])
        for index in range(2):
            sample = task[index]
            trace = run_agent(backend, task.prompt(sample)[0], task.tools(sample))
            image, _ = draw_story(trace, LIMITS)
            assert image.width == WIDTH
            assert image.height < 1600


@pytest.mark.usefixtures("folder")
def test_ask_writes_it(run: Run, backend: FakeBackend, folder: Path) -> None:
    backend.queue(zoom('{"bbox_2d": [0, 0, 250, 500]}'), FakeReply(content="A cat."))
    code, out, err = run("ask", "photo.jpg", "What?", "--tools", "zoom", "--story", "story.png")
    assert (code, out) == (0, "A cat.\n")
    assert "The story is drawn: story.png" in err
    with Image.open(folder / "story.png") as story:
        assert story.format == "PNG"
        assert story.width == WIDTH


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--story", "o.jpg"), "--story o.jpg: the picture is a PNG file. Give a name that ends in .png"),
        (("--story", "nowhere/o.png"), "there is no folder 'nowhere'"),
        (("--story", "o.png", "--font", "notes.txt"), "cannot read the font notes.txt"),
        (("--font", "notes.txt"), "--font notes.txt has nothing to act on"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_model_is_loaded(run: Run, args: tuple[str, ...], message: str) -> None:
    code, _, err = run("ask", "photo.jpg", "Q?", *args)
    assert code == 2
    assert message in err


@pytest.mark.usefixtures("folder")
def test_a_place_that_cannot_be_written(run: Run, backend: FakeBackend) -> None:
    Path("o.png").mkdir()
    backend.queue("A.")
    code, _, err = run("ask", "photo.jpg", "Q?", "--story", "o.png")
    assert code == 2
    assert "--story o.png cannot be written" in err
