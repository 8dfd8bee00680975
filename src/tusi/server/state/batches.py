"""Batches and the lines of them that are finished. A line is kept the moment it is answered, in one transaction."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tusi.core.errors import RequestError
from tusi.server.state.database import StateFolder

RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class BatchNotFound(RequestError):
    """There is no batch of that id."""

    default_code = "batch_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch's row, with how many of its lines were answered and how many of them with an error."""

    id: str
    endpoint: str
    input_file_id: str
    status: str
    completion_window: str
    metadata: dict[str, str] | None
    created_at: int
    expires_at: int
    total: int
    output_file_id: str | None
    error_file_id: str | None
    output_lifetime: int | None
    errors: list[dict[str, Any]] | None
    times: dict[str, int | None]
    num_completed: int
    num_failed: int

    def to_object(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": None if self.errors is None else {"object": "list", "data": self.errors},
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **self.times,
            "request_counts": {"total": self.total, "completed": self.num_completed, "failed": self.num_failed},
            "metadata": self.metadata,
        }


class BatchStore:
    """Batches in a state folder."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def create(
        self,
        *,
        endpoint: str,
        input_file_id: str,
        window: tuple[str, int],
        metadata: dict[str, str] | None,
        output_lifetime: int | None,
    ) -> Batch:
        """A new batch, to be validated. window: its name and its seconds."""
        now = int(time.time())
        batch_id = f"batch_{uuid.uuid4().hex}"
        with self._state.transaction() as database:
            database.execute(
                "INSERT INTO batches (id, created_at, endpoint, input_file_id, status, completion_window, metadata, "
                "expires_at, output_lifetime) VALUES (?, ?, ?, ?, 'validating', ?, ?, ?, ?)",
                (
                    batch_id,
                    now,
                    endpoint,
                    input_file_id,
                    window[0],
                    None if metadata is None else json.dumps(metadata),
                    now + window[1],
                    output_lifetime,
                ),
            )
        return self.get(batch_id)

    def get(self, batch_id: str) -> Batch:
        """Raises BatchNotFound."""
        with self._state.transaction() as database:
            row = database.execute(f"{_SELECT} WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise BatchNotFound(f"there is no batch {batch_id[:80]!r}. GET /v1/batches lists them.")
        return _batch(row)

    def list(self) -> list[Batch]:
        """All, the newest first."""
        with self._state.transaction() as database:
            rows = database.execute(f"{_SELECT} ORDER BY created_at DESC, rowid DESC").fetchall()
        return [_batch(row) for row in rows]

    def next_running(self) -> Batch | None:
        """The oldest that has not ended."""
        marks = ", ".join("?" * len(RUNNING))
        with self._state.transaction() as database:
            row = database.execute(
                f"{_SELECT} WHERE status IN ({marks}) ORDER BY created_at, rowid LIMIT 1", RUNNING
            ).fetchone()
        return None if row is None else _batch(row)

    def move(self, batch_id: str, *, of: tuple[str, ...], to: str, **values: Any) -> bool:
        """Change the status if it is one of `of`, and set more values with it. False: it was none of them."""
        values |= {"status": to, f"{to}_at": int(time.time())}
        assignments = ", ".join(f"{name} = :{name}" for name in values)
        marks = ", ".join(f"'{status}'" for status in of)
        with self._state.transaction() as database:
            cursor = database.execute(
                f"UPDATE batches SET {assignments} WHERE id = :batch_id AND status IN ({marks})",  # noqa: S608  # ours
                {**values, "batch_id": batch_id},
            )
            if cursor.rowcount and to in ("completed", "cancelled", "expired", "failed"):
                self._keep_counts(database, batch_id)
        return cursor.rowcount > 0

    def fail(self, batch_id: str, errors: Sequence[dict[str, Any]]) -> None:
        """It ends without an output."""
        self.move(batch_id, of=RUNNING, to="failed", errors=json.dumps(errors))

    def finish_line(self, batch_id: str, line: int, result: dict[str, Any], *, is_error: bool) -> None:
        """Keep the answer to a line. A line that is finished stays as it is."""
        with self._state.transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO batch_lines (batch_id, line, is_error, result) VALUES (?, ?, ?, ?)",
                (batch_id, line, int(is_error), json.dumps(result, ensure_ascii=False)),
            )

    def finished_lines(self, batch_id: str) -> set[int]:
        """Numbers of the lines that need not be run again."""
        with self._state.transaction() as database:
            rows = database.execute("SELECT line FROM batch_lines WHERE batch_id = ?", (batch_id,)).fetchall()
        return {row["line"] for row in rows}

    def results(self, batch_id: str, *, is_error: bool) -> Iterator[str]:
        """JSON texts of finished lines, in the order of the input; a few at a time."""
        last = -1
        while True:
            with self._state.transaction() as database:
                rows = database.execute(
                    "SELECT line, result FROM batch_lines WHERE batch_id = ? AND is_error = ? AND line > ? "
                    "ORDER BY line LIMIT 64",
                    (batch_id, int(is_error), last),
                ).fetchall()
            if not rows:
                return
            yield from (row["result"] for row in rows)
            last = rows[-1]["line"]

    def _keep_counts(self, database: sqlite3.Connection, batch_id: str) -> None:
        """The lines are in files now: what is left of them here is their number."""
        database.execute(
            "UPDATE batches SET num_failed = (SELECT count(*) FROM batch_lines WHERE batch_id = :id AND is_error = 1), "
            "num_completed = (SELECT count(*) FROM batch_lines WHERE batch_id = :id AND is_error = 0) WHERE id = :id",
            {"id": batch_id},
        )
        database.execute("DELETE FROM batch_lines WHERE batch_id = ?", (batch_id,))


_SELECT = (
    "SELECT *, (SELECT count(*) FROM batch_lines WHERE batch_id = batches.id AND is_error = 0) AS now_completed, "
    "(SELECT count(*) FROM batch_lines WHERE batch_id = batches.id AND is_error = 1) AS now_failed FROM batches"
)


def _batch(row: sqlite3.Row) -> Batch:
    same = ("id", "endpoint", "input_file_id", "status", "completion_window", "created_at", "expires_at", "total")
    return Batch(
        **{name: row[name] for name in (*same, "output_file_id", "error_file_id", "output_lifetime")},
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        errors=None if row["errors"] is None else json.loads(row["errors"]),
        times={name: row[name] for name in _TIMES},
        num_completed=row["num_completed"] + row["now_completed"],
        num_failed=row["num_failed"] + row["now_failed"],
    )
