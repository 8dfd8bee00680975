"""The folder in which servers keep what outlives a request, and the SQLite file in it.

Several servers may share a folder: whoever holds its `batches.lock` runs the batches, and another takes over when that
one ends. Every write is one transaction, so that a server that is killed leaves nothing half done.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tusi.core.errors import ConfigError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, previous_id TEXT, created_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL, body TEXT NOT NULL, input TEXT NOT NULL, output TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created_at);
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, expires_at INTEGER,
    filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, endpoint TEXT NOT NULL, input_file_id TEXT NOT NULL,
    status TEXT NOT NULL, completion_window TEXT NOT NULL, metadata TEXT, total INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL, in_progress_at INTEGER, finalizing_at INTEGER, completed_at INTEGER,
    failed_at INTEGER, expired_at INTEGER, cancelling_at INTEGER, cancelled_at INTEGER,
    output_file_id TEXT, error_file_id TEXT, errors TEXT, output_lifetime INTEGER,
    num_completed INTEGER NOT NULL DEFAULT 0, num_failed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS batch_lines (
    batch_id TEXT NOT NULL, line INTEGER NOT NULL, is_error INTEGER NOT NULL, result TEXT NOT NULL,
    PRIMARY KEY (batch_id, line)
) WITHOUT ROWID;
"""


class StateFolder:
    """An open folder. path None: a temporary one, gone when closed. Raises ConfigError if it cannot be used."""

    def __init__(self, path: Path | None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tusi-serve-") if path is None else None
        self.path = Path(self._temporary.name) if self._temporary is not None else Path(path or "")
        self._lock = threading.Lock()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path / "state.sqlite", check_same_thread=False, isolation_level=None, timeout=30
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"the state folder {self.path} cannot be used ({error}). Choose another.") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. One thread at a time."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """A temporary one is gone then."""
        with self._lock:
            self._connection.close()
        if self._temporary is not None:
            self._temporary.cleanup()
