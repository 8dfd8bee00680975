from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fixtures.pdf import make_pdf
from tusi.agent.index import text_files
from tusi.agent.index.text_files import PASSAGE_CHARS, Passage, read_passages
from tusi.core.errors import BackendUnavailable, RequestError


def read(tmp_path: Path, name: str, text: str | bytes) -> list[Passage]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_passages(path))


def test_markdown_is_cut_at_headings_which_are_kept(tmp_path: Path) -> None:
    text = "intro\n\n# Cats\nThey purr.\n\n```\n# not a heading\n```\n## Food ##\n\nFish.\n\n# Dogs\nThey bark.\n"
    assert read(tmp_path, "a.md", text) == [
        Passage("line 1", "", "intro"),
        Passage("line 4", "Cats", "They purr.\n```\n# not a heading\n```"),
        Passage("line 11", "Cats > Food", "Fish."),
        Passage("line 14", "Dogs", "They bark."),
    ]


def test_paragraphs_are_joined_and_long_ones_cut_at_sentences(tmp_path: Path) -> None:
    short = read(tmp_path, "a.txt", "One.\n\nTwo\nlines.\n\n\nThree.")
    assert short == [Passage("line 1", "", "One.\nTwo\nlines.\nThree.")]
    text = "第一句话在这里。" * 300 + "\n\n" + "word " * 400 + "\n\nx" + "y" * 2000
    long = read(tmp_path, "b.txt", text)
    assert all(len(passage.text) <= PASSAGE_CHARS for passage in long)
    assert all(passage.text.endswith("。") for passage in long[:3])
    letters = "".join(passage.text for passage in long)
    assert (letters.count("第一句"), letters.count("word"), letters.count("y")) == (300, 400, 2000)
    assert [passage.place for passage in long][-1] == "line 5"


def test_nothing_is_no_passage(tmp_path: Path) -> None:
    assert read(tmp_path, "a.md", "\n# Only a heading\n\n") == []


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    assert read(tmp_path, "a.pdf", make_pdf(["Cats purr.", "Dogs bark."])) == [
        Passage("page 1", "", "Cats purr."),
        Passage("page 2", "", "Dogs bark."),
    ]


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4\n", b"words", make_pdf(["x"])[:200]])
def test_a_damaged_pdf_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RequestError, match=r"a.pdf is not a PDF that can be read .* Save it again, or as text"):
        read(tmp_path, "a.pdf", data)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_PDF_PAGES", 1)
    with pytest.raises(RequestError, match="has 2 pages; at most 1 are read"):
        read(tmp_path, "a.pdf", make_pdf(["x", "y"]))
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 3)
    with pytest.raises(RequestError, match="has 4 bytes; at most 3 are indexed"):
        read(tmp_path, "a.txt", "four")


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is not UTF-8 text .* Convert it"):
        read(tmp_path, "a.txt", "中文".encode("gb18030"))
    assert read(tmp_path, "b.txt", "\ufeffwords")[0].text == "words"


def test_without_pypdf_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'tusi\[pdf\]'"):
        read(tmp_path, "a.pdf", make_pdf(["x"]))
