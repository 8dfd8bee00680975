"""The SQLite file behind an index: its tables, its version, how it is opened. Knows nothing of what is looked up.

Writers open one connection; readers open one for each look-up, so that threads need not share any.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tusi.core.errors import ConfigError

# "Tusi" in the file's header: a database of somebody else's is never written to.
APPLICATION_ID = 0x54757369
VERSION = 1

_TABLES = """
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, root TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (root, path)
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents (id), source TEXT NOT NULL,
    heading TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX passages_of_document ON passages (document);
CREATE VIRTUAL TABLE passage_terms USING fts5 (heading, text, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, root TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL, caption TEXT NOT NULL,
    vector BLOB NOT NULL, thumbnail BLOB NOT NULL, UNIQUE (root, path)
);
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an index, which is made if there is none. Commits at the end; Ctrl-C keeps earlier commits.

    Raises ConfigError for a file that is not an index.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"--index {path}: there is no folder {str(path.parent)!r}. Create it, or choose another.")
    try:
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            _prepare(connection, path)
            yield connection
            connection.commit()
    except sqlite3.Error as error:
        raise ConfigError(f"the index {path} cannot be written ({error}). Is it a file of this program's?") from error


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection. Raises ConfigError for a file that is missing or not an index."""
    if not path.is_file():
        raise ConfigError(
            f"there is no index {str(path)!r}. Make one: tusi index docs FOLDER --index {path}, or tusi index images."
        )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            _check(connection, path)
            yield connection
    except sqlite3.Error as error:
        raise ConfigError(f"the index {path} cannot be read ({error}). Make it again with tusi index.") from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _check(connection, path)
        return
    connection.executescript(
        f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {_TABLES} COMMIT;"
    )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )
    if found[0] != APPLICATION_ID:
        raise ConfigError(f"{path} is not an index of Tusi's. Choose another file for --index.")
    if found[1] != VERSION:
        raise ConfigError(
            f"the index {path} has version {found[1]}; this Tusi reads version {VERSION}. Delete it and make it again."
        )
