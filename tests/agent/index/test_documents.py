from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tusi.agent.index.documents import count_passages, index_documents, search_documents
from tusi.agent.index.store import VERSION
from tusi.core.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "cats.md").write_text("# Cats\n\nThey purr and sleep.\n\n# Their food\n\nFish, mostly.\n")
    (docs / "deep" / "图灵.txt").write_text("艾伦·图灵1912年生于伦敦。\n\n他提出了图灵机。", encoding="utf-8")
    (docs / ".hidden.md").write_text("purr")
    (docs / "picture.png").write_bytes(b"purr")
    return docs


def sources(index: Path, query: str) -> list[str]:
    return [passage.source for passage in search_documents(index, query)]


def test_passages_are_found_with_their_source(folder: Path, tmp_path: Path) -> None:
    report = index_documents(folder, tmp_path / "i")
    assert (report.added, report.unchanged, report.removed, report.failed) == (2, 0, 0, {})
    (cat,) = search_documents(tmp_path / "i", "what PURRS?")
    assert (cat.source, cat.heading, cat.text) == ("cats.md, line 3", "Cats", "They purr and sleep.")
    assert sources(tmp_path / "i", "图灵机是谁提出的") == ["deep/图灵.txt, line 1"]
    assert sources(tmp_path / "i", "unknown") == []
    assert sources(tmp_path / "i", "?") == []


def test_headings_and_better_matches_come_first(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.md").write_text("# Notes\n\nSomething on food, and on the weather of that day.\n")
    (tmp_path / "z.md").write_text("# Food\n\nFish.\n\n# Other\n\nfood of cats\n")
    index_documents(tmp_path, tmp_path / "i")
    assert sources(tmp_path / "i", "food")[0] == "z.md, line 3"
    assert sources(tmp_path / "i", "food of cats")[0] == "z.md, line 7"
    assert len(sources(tmp_path / "i", "food")) == 5


def test_a_second_run_reads_what_changed(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    index_documents(folder, index)
    seen: list[Path] = []
    (folder / "cats.md").write_text("They miaow.")
    (folder / "deep" / "图灵.txt").unlink()
    (folder / "new.txt").write_text("something new")
    report = index_documents(folder, index, on_file=seen.append)
    assert (report.added, report.unchanged, report.removed) == (2, 0, 1)
    assert [path.name for path in seen] == ["cats.md", "new.txt"]
    assert [bool(sources(index, word)) for word in ("purr", "miaow", "图灵", "new")] == [False, True, False, True]
    assert index_documents(folder, index).unchanged == 2
    assert count_passages(index) == 2


def test_folders_do_not_disturb_each_other(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "cats.md").write_text("They scratch.")
    index_documents(folder, tmp_path / "i")
    index_documents(other, tmp_path / "i")
    assert sources(tmp_path / "i", "purr scratch") == ["cats.md, line 1", "cats.md, line 3"]


def test_a_file_that_cannot_be_read_is_reported_and_forgotten(folder: Path, tmp_path: Path) -> None:
    index_documents(folder, tmp_path / "i")
    (folder / "cats.md").write_bytes(b"\xff\xfe purr")
    report = index_documents(folder, tmp_path / "i")
    assert list(report.failed) == ["cats.md"]
    assert "is not UTF-8 text" in report.failed["cats.md"]
    assert sources(tmp_path / "i", "purr") == []
    assert (report.added, report.unchanged) == (0, 1)


def test_wrong_places_are_refused(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words, other, old = tmp_path / "words", tmp_path / "other.db", tmp_path / "old"
    words.write_text("words " * 1000)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    index_documents(folder, old)
    with sqlite3.connect(old) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    for given, index, advice in (
        (empty, tmp_path / "i", r"no file to index in .*looked for: .md .*.pdf"),
        (words, tmp_path / "i", "is not a folder. Give the folder"),
        (folder, tmp_path / "nowhere" / "i", "there is no folder .*Create it"),
        (folder, words, "cannot be written"),
        (folder, other, "is not an index of Tusi's. Choose another file"),
        (folder, old, "Delete it and make it again"),
    ):
        with pytest.raises(ConfigError, match=advice):
            index_documents(given, index)
    for index, advice in ((tmp_path / "i", "Make one: tusi index docs"), (words, "cannot be read"), (other, "not an")):
        with pytest.raises(ConfigError, match=advice):
            search_documents(index, "purr")
    assert words.read_text() == "words " * 1000
