"""Files that clients upload and that batches leave: rows in the database, bytes in a folder beside it.

The bytes are in place before the row is, and go after it: whoever is killed between the two leaves bytes that nobody
can name, which the next start throws away.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tusi.core.errors import CapacityError, RequestError
from tusi.server.state.database import StateFolder

MAX_TOTAL_BYTES = 32 * 2**30
_COPY_BYTES = 2**20
_STALE_SECONDS = 24 * 3600


class FileNotFound(RequestError):
    """There is no file of that id."""

    default_code = "file_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file's row."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None

    def to_object(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileStore:
    """Files in a state folder. max_bytes: of all of them together. All methods may block: call them from a thread."""

    def __init__(self, state: StateFolder, *, max_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._state, self._max_bytes = state, max_bytes
        self._folder = state.path / "files"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._sweep()

    def add(self, source: BinaryIO, *, filename: str, purpose: str, lifetime: int | None = None) -> StoredFile:
        """Keep a copy of what a file object gives. Raises CapacityError if there is no room."""
        file_id = f"file-{uuid.uuid4().hex}"
        self._check_room()
        with self._writing(file_id) as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        return self.register(file_id, filename=filename, purpose=purpose, lifetime=lifetime)

    def write(self, file_id: str, write_to: Callable[[BinaryIO], None]) -> None:
        """Put bytes in place for `register`; the same id again replaces them."""
        with self._writing(file_id) as target:
            write_to(target)

    def register(self, file_id: str, *, filename: str, purpose: str, lifetime: int | None = None) -> StoredFile:
        """Make bytes that are in place a file."""
        now = int(time.time())
        stored = StoredFile(
            id=file_id,
            filename=filename,
            purpose=purpose,
            bytes=self.path(file_id).stat().st_size,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        with self._state.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO files (id, created_at, expires_at, filename, purpose, bytes) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (stored.id, stored.created_at, stored.expires_at, stored.filename, stored.purpose, stored.bytes),
            )
        return stored

    def get(self, file_id: str, *, param: str | None = None) -> StoredFile:
        """Raises FileNotFound."""
        with self._state.transaction() as database:
            row = database.execute("SELECT * FROM files WHERE id = ?", (file_id,)).fetchone()
        if row is None or (row["expires_at"] is not None and row["expires_at"] <= time.time()):
            if row is not None:
                self._drop(file_id)
            raise _not_found(file_id, param)
        return StoredFile(**dict(row))

    def path(self, file_id: str) -> Path:
        """Where the bytes of a file are. The id must be one that get has found."""
        return self._folder / file_id

    def head(self, file_id: str, size: int, *, param: str | None = None) -> bytes:
        """Its first bytes. Raises FileNotFound."""
        self.get(file_id, param=param)
        try:
            with self.path(file_id).open("rb") as file:
                return file.read(size)
        except FileNotFoundError:  # deleted just now
            raise _not_found(file_id, param) from None

    def list(self, *, purpose: str | None = None, newest_first: bool = True) -> list[StoredFile]:
        """All that have not expired."""
        with self._state.transaction() as database:
            rows = database.execute(
                "SELECT * FROM files WHERE (? IS NULL OR purpose = ?) AND (expires_at IS NULL OR expires_at > ?) "
                "ORDER BY created_at, rowid",
                (purpose, purpose, int(time.time())),
            ).fetchall()
        return [StoredFile(**dict(row)) for row in (reversed(rows) if newest_first else rows)]

    def delete(self, file_id: str) -> None:
        """Raises FileNotFound, or RequestError for the input of a batch that runs."""
        self.get(file_id)
        with self._state.transaction() as database:
            busy = database.execute(
                "SELECT id FROM batches WHERE input_file_id = ? AND status IN "
                "('validating', 'in_progress', 'finalizing', 'cancelling')",
                (file_id,),
            ).fetchone()
        if busy is not None:
            raise RequestError(
                f"file {file_id!r} is the input of batch {busy['id']!r}, which runs. Cancel the batch first.",
                code="file_in_use",
            )
        self._drop(file_id)

    def _drop(self, file_id: str) -> None:
        with self._state.transaction() as database:
            database.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.path(file_id).unlink(missing_ok=True)

    def _check_room(self) -> None:
        self._drop_expired()
        with self._state.transaction() as database:
            total = database.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0]
        if total >= self._max_bytes:
            raise CapacityError(
                f"files of {total:,} bytes are stored here, and there is room for {self._max_bytes:,}. Delete some.",
                retry_after=60.0,
            )

    def _drop_expired(self) -> None:
        """A server that runs for months must not keep what nobody asks for any more."""
        with self._state.transaction() as database:
            rows = database.execute("SELECT id FROM files WHERE expires_at <= ?", (int(time.time()),)).fetchall()
        for row in rows:
            self._drop(row["id"])

    def _writing(self, file_id: str) -> _Replacing:
        return _Replacing(self.path(file_id))

    def _sweep(self) -> None:
        """Throw away the bytes of files that have expired, and those that nobody can name."""
        now = time.time()
        with self._state.transaction() as database:
            database.execute("DELETE FROM files WHERE expires_at <= ?", (int(now),))
            known = {row["id"] for row in database.execute("SELECT id FROM files")}
        for path in self._folder.iterdir():
            if path.name not in known and now - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)


def _not_found(file_id: str, param: str | None) -> FileNotFound:
    return FileNotFound(
        f"there is no file {file_id[:80]!r}. It was deleted, has expired, or was given to another server; "
        "upload it to /v1/files.",
        param=param,
    )


class _Replacing:
    """A file to write that takes its place once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_suffix(f".{uuid.uuid4().hex}.part")
        self._file: BinaryIO | None = None

    def __enter__(self) -> BinaryIO:
        self._file = self._part.open("xb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
