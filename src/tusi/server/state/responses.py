"""Stored responses: each with its own input and output; a conversation is the chain of those before it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tusi.core.errors import RequestError
from tusi.server.state.database import StateFolder

MAX_STORED = 10_000
MAX_BYTES = 2**30
"""The oldest are dropped beyond either."""

Item = dict[str, Any]


class ResponseNotFound(RequestError):
    """There is no stored response of that id."""

    default_code = "response_not_found"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """body: the response object as it was sent. input: the request's own items. output: the items of the answer."""

    body: dict[str, Any]
    input: list[Item]
    output: list[Item]
    previous_id: str | None


class ResponseStore:
    """Responses in a state folder."""

    def __init__(self, state: StateFolder, *, max_stored: int = MAX_STORED, max_bytes: int = MAX_BYTES) -> None:
        self._state, self._max_stored, self._max_bytes = state, max_stored, max_bytes

    def save(self, response: StoredResponse) -> None:
        """Keep a response."""
        texts = [json.dumps(value) for value in (response.body, response.input, response.output)]
        created_at = int(response.body["created_at"])
        row = (response.body["id"], response.previous_id, created_at, sum(map(len, texts)), *texts)
        with self._state.transaction() as database:
            database.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            database.execute(
                "DELETE FROM responses WHERE id IN (SELECT id FROM (SELECT id, "
                "row_number() OVER age AS number, sum(bytes) OVER age AS total FROM responses "
                "WINDOW age AS (ORDER BY created_at DESC, rowid DESC)) WHERE number > ? OR total > ?)",
                (self._max_stored, self._max_bytes),
            )

    def get(self, response_id: str, *, param: str | None = None) -> StoredResponse:
        """Raises ResponseNotFound."""
        with self._state.transaction() as database:
            row = database.execute("SELECT * FROM responses WHERE id = ?", (response_id,)).fetchone()
        if row is None:
            raise ResponseNotFound(
                f"there is no stored response {response_id[:80]!r}. It was not stored, was deleted, or is too old; "
                "send the conversation itself as input.",
                param=param,
            )
        body, given, output = (json.loads(row[name]) for name in ("body", "input", "output"))
        return StoredResponse(body, given, output, row["previous_id"])

    def delete(self, response_id: str) -> None:
        """Forget it. Conversations that went on from it cannot be gone on with. Raises ResponseNotFound."""
        self.get(response_id)
        with self._state.transaction() as database:
            database.execute("DELETE FROM responses WHERE id = ?", (response_id,))

    def conversation(self, response_id: str) -> list[Item]:
        """Everything said up to and with a response. Raises ResponseNotFound."""
        turns: list[StoredResponse] = []
        next_id: str | None = response_id
        while next_id is not None:
            turns.append(self.get(next_id, param="previous_response_id"))
            next_id = turns[-1].previous_id
        return [item for turn in reversed(turns) for item in (*turn.input, *turn.output)]
