"""Passages of documents in an index: taken in folder by folder, found by their words (BM25)."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tusi.agent.index.segment import index_text, query_expression
from tusi.agent.index.store import reading, writing
from tusi.agent.index.text_files import SUFFIXES, Passage, read_passages
from tusi.core.errors import ConfigError, RequestError

# A word in a heading tells more about a passage than one in its text.
_HEADING_WEIGHT, _TEXT_WEIGHT = 3.0, 1.0
_SEARCH = """
SELECT source, passages.heading, passages.text
FROM passage_terms JOIN passages ON passages.id = passage_terms.rowid
WHERE passage_terms MATCH ? ORDER BY bm25(passage_terms, ?, ?) LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A passage that matches. source: the file, relative to its folder, and the place in it."""

    source: str
    heading: str
    text: str


@dataclass(slots=True)
class Report:
    """What taking a folder in did. failed: file -> why."""

    added: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def folder_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with these suffixes under a folder, hidden ones left out, in order. Raises ConfigError if there is none."""
    if not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is not a folder. Give the folder with the files to be indexed.")
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise ConfigError(f"there is no file to index in {str(folder)!r}; looked for: {' '.join(suffixes)}.")
    return found


def file_digest(path: Path) -> str:
    """Changes when the file does. Raises RequestError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error


def index_documents(folder: Path, index: Path, *, on_file: Callable[[Path], None] = lambda _path: None) -> Report:
    """Take in the documents of a folder; run again, only what changed is read. Raises ConfigError.

    A file that cannot be read is reported and left out; what the index held of it before goes.
    """
    files = folder_files(folder, SUFFIXES)
    root = str(folder.resolve())
    report = Report()
    with writing(index) as connection:
        known = {path: (row, digest) for row, path, digest in _documents(connection, root)}
        for path in files:
            on_file(path)
            name = path.relative_to(folder).as_posix()
            row, old_digest = known.pop(name, (None, None))
            try:
                digest = file_digest(path)
                if digest == old_digest:
                    report.unchanged += 1
                    continue
                passages = list(read_passages(path))
            except RequestError as error:
                report.failed[name] = str(error)
                passages = None
            if row is not None:
                _remove(connection, row)
            if passages is not None:
                _add(connection, root, name, digest, passages)
                report.added += 1
            connection.commit()
        for row, _ in known.values():
            _remove(connection, row)
            report.removed += 1
    return report


def search_documents(index: Path, query: str, *, limit: int = 5) -> list[FoundPassage]:
    """The passages that match any word of the query, best first. Raises ConfigError for what is not an index."""
    expression = query_expression(query)
    if expression is None:
        return []
    with reading(index) as connection:
        rows = connection.execute(_SEARCH, (expression, _HEADING_WEIGHT, _TEXT_WEIGHT, limit))
        return [FoundPassage(*row) for row in rows]


def count_passages(index: Path) -> int:
    """How many passages an index holds."""
    with reading(index) as connection:
        return int(connection.execute("SELECT count(*) FROM passages").fetchone()[0])


def _documents(connection: sqlite3.Connection, root: str) -> list[tuple[int, str, str]]:
    return connection.execute("SELECT id, path, digest FROM documents WHERE root = ?", (root,)).fetchall()


def _add(connection: sqlite3.Connection, root: str, name: str, digest: str, passages: Sequence[Passage]) -> None:
    row = connection.execute("INSERT INTO documents (root, path, digest) VALUES (?, ?, ?)", (root, name, digest))
    for passage in passages:
        cursor = connection.execute(
            "INSERT INTO passages (document, source, heading, text) VALUES (?, ?, ?, ?)",
            (row.lastrowid, f"{name}, {passage.place}", passage.heading, passage.text),
        )
        connection.execute(
            "INSERT INTO passage_terms (rowid, heading, text) VALUES (?, ?, ?)",
            (cursor.lastrowid, index_text(f"{Path(name).stem} {passage.heading}"), index_text(passage.text)),
        )


def _remove(connection: sqlite3.Connection, document: int) -> None:
    connection.execute(
        "DELETE FROM passage_terms WHERE rowid IN (SELECT id FROM passages WHERE document = ?)", (document,)
    )
    connection.execute("DELETE FROM passages WHERE document = ?", (document,))
    connection.execute("DELETE FROM documents WHERE id = ?", (document,))
