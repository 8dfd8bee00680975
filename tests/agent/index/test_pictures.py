from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.vectors import mean_colour
from tusi.agent.index.captions import caption_of, read_captions
from tusi.agent.index.pictures import THUMBNAIL_SIDE, PictureIndex, index_pictures
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

LIMITS = MediaLimits()
COLOURS = {"red": (220, 10, 10), "green": (10, 200, 10), "blue": (10, 10, 220), "sky_blue": (90, 160, 230)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (600, 300), colour).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("copies", [1, 3])  # with and without the centre taken away
def test_pictures_that_look_alike_are_found(folder: Path, tmp_path: Path, copies: int) -> None:
    for number in range(copies - 1):
        for name, colour in COLOURS.items():
            Image.new("RGB", (60, 60), colour).save(folder / f"{name}-{number}.png")
    assert index_pictures(folder, tmp_path / "i", mean_colour, LIMITS).added == 4 * copies
    index = PictureIndex(tmp_path / "i", mean_colour)
    found = index.search(Image.new("RGB", (40, 40), (15, 15, 215)), limit=copies + 1)
    assert {hit.caption.split()[0] for hit in found[:copies]} == {"blue"}
    assert found[0].source == "blue.png" if copies == 1 else found[0].source.startswith("blue")
    assert 1.001 > found[0].likeness > 0.95 > found[-1].likeness
    assert found[-1].caption.startswith("sky blue")


def test_the_index_shows_pictures_without_their_folder(folder: Path, tmp_path: Path) -> None:
    index_pictures(folder, tmp_path / "i", mean_colour, LIMITS)
    for path in folder.iterdir():
        path.unlink()
    (hit,) = PictureIndex(tmp_path / "i", mean_colour).search(Image.new("RGB", (9, 9), COLOURS["red"]), limit=1)
    with Image.open(io.BytesIO(hit.thumbnail)) as thumbnail:
        assert thumbnail.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2)
        assert np.abs(np.asarray(thumbnail.convert("RGB"))[9, 9].astype(int) - COLOURS["red"]).max() < 8


def test_a_second_run_embeds_what_changed(folder: Path, tmp_path: Path) -> None:
    index_pictures(folder, tmp_path / "i", mean_colour, LIMITS)
    Image.new("RGB", (9, 9), (255, 255, 255)).save(folder / "red.png")
    (folder / "blue.png").unlink()
    (folder / "green.txt").write_text("a meadow")
    (folder / "broken.png").write_bytes(b"no picture")
    embedded: list[int] = []

    def embed(picture: Image.Image) -> np.ndarray:
        embedded.append(picture.width)
        return mean_colour(picture)

    report = index_pictures(folder, tmp_path / "i", embed, LIMITS)
    assert (report.added, report.unchanged, report.removed, list(report.failed)) == (2, 1, 1, ["broken.png"])
    assert embedded == [112, 600, 9]  # the test picture; green has another caption, red other pixels
    found = PictureIndex(tmp_path / "i", mean_colour).search(Image.new("RGB", (9, 9), COLOURS["green"]), limit=9)
    assert found[0].caption == "a meadow"
    assert len(found) == 3


def test_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    index_pictures(folder, tmp_path / "i", mean_colour, LIMITS)
    for other in (lambda p: mean_colour(p)[::-1], lambda p: np.ones(7, np.float32)):
        with pytest.raises(ConfigError, match=r"indexed with another model.*make the index again in a new file"):
            PictureIndex(tmp_path / "i", other)
        with pytest.raises(ConfigError, match="indexed with another model"):
            index_pictures(folder, tmp_path / "i", other, LIMITS)


def test_captions_come_from_metadata_text_files_and_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("  from a text file\n")
    (tmp_path / "c.jpg.txt").write_text("from another")
    metadata = {
        "metadata.jsonl": '{"file_name": "a.jpg", "text": "from metadata"}\n\n'
        '{"file_name": "d/e.jpg", "caption": "e"}\n',
        "metadata.csv": 'file_name,text\na.jpg,from metadata\n"d/e.jpg",e\n',
    }
    for name, text in metadata.items():
        (tmp_path / name).write_text(text)
        captions = read_captions(tmp_path)
        for picture, caption in (
            ("a.jpg", "from metadata"),
            ("b.jpg", "from a text file"),
            ("c.jpg", "from another"),
            ("d/e.jpg", "e"),
            ("my_cat-2.jpg", "my cat 2"),
        ):
            assert caption_of(tmp_path / picture, picture, captions) == caption
        (tmp_path / name).unlink()
    assert read_captions(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", "{"),
        ("metadata.jsonl", '{"text": "x"}'),
        ("metadata.csv", "name\nx\n"),
        ("metadata.jsonl", "1"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=r"cannot be read .*Each entry needs file_name and text"):
        read_captions(tmp_path)
