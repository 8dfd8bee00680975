"""`tusi index`, and `tusi ask` with what it made."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.fixtures.vectors import mean_colour
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.chat.messages import ImagePart, ToolCall

pytestmark = pytest.mark.usefixtures("folder")


class SeeingBackend(FakeBackend):
    """A fake with a vision tower."""

    def embed_image(self, image: ImagePart) -> object:
        assert isinstance(image.source, Image.Image)
        assert image.options == {"max_pixels": 448 * 448}
        return mean_colour(image.source)


def test_documents_are_indexed_and_asked_about(run: Run, backend: FakeBackend) -> None:
    assert run("index", "docs", ".", "--index", "my.index") == (
        0,
        "my.index: 1 added or changed, 0 unchanged, 0 removed\n",
        "",
    )
    call = FakeReply(tool_calls=(ToolCall("x", "knowledge_search", '{"query": "words"}'),))
    backend.queue(call, "Words.")
    code, out, err = run("ask", "What?", "--tools", "knowledge_search", "--index", "my.index")
    assert (code, out) == (0, "Words.\n")
    assert '-> knowledge_search {"query": "words"}\n<- [1] notes.txt, line 1\n<- words\n' in err


def test_pictures_are_indexed_and_searched(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    backends: list[FakeBackend] = [SeeingBackend(), SeeingBackend(), FakeBackend(), FakeBackend(["A."])]
    monkeypatch.setattr("tusi.cli.session.load_backend", lambda name, options: backends.pop(0))
    code, out, _ = run("index", "images", ".", "--index", "my.index", "--model", "m")
    assert (code, out) == (0, "my.index: 2 added or changed, 0 unchanged, 0 removed\n")
    call = FakeReply(tool_calls=(ToolCall("x", "image_search", '{"img_idx": 0}'),))
    backends[0].queue(call, "A photo.")
    arguments = ("ask", "photo.jpg", "Q?", "--tools", "image_search", "--index", "my.index", "--model", "m")
    code, out, err = run(*arguments)
    assert (code, out) == (0, "A photo.\n")
    assert "<- [1] photo (likeness 1.00), photo.jpg\n<- a picture of 200 x 100 pixels\n" in err
    code, _, err = run("index", "images", ".", "--index", "my.index", "--model", "m")
    assert code == 2
    assert "makes no vectors of pictures. Choose a model that runs in this process" in err
    code, _, err = run(*arguments)
    assert code == 2
    assert "this backend does not offer one" in err


def test_files_that_cannot_be_read_make_it_fail_at_the_end(run: Run, folder: Path) -> None:
    (folder / "bad.md").write_bytes(b"\xff")
    code, out, err = run("index", "docs", ".", "--index", "my.index")
    assert code == 1
    assert "1 added" in out
    assert "left out: bad.md: bad.md is not UTF-8 text" in err
    assert "1 could not be read" in err


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (("films", ".", "--index", "i"), "tusi index knows nothing called 'films'; there are: docs, images"),
        (("docs", "nowhere", "--index", "i"), "'nowhere' is not a folder"),
        (("docs", ".", "--index", "i", "--model", "m"), "--model m has nothing to act on"),
        (("docs", "."), "Missing option '--index'"),
        (("images", ".", "--index", "i"), "no model is chosen"),
    ],
)
def test_wrong_usage(run: Run, args: tuple[str, ...], advice: str) -> None:
    code, _, err = run("index", *args)
    assert code == 2
    assert advice in err
    assert not Path("i").exists()
