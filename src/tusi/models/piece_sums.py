"""CRC-32 of a long run of bytes, piece by piece, so that threads can check pieces apart and damage has a place.

CRC-32 finds every change of up to 32 neighbouring bits and all but one in 4e9 of the others. It is no defence against
somebody who forges a file; SHA-256 in a manifest (`tusi verify`) is.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field


@dataclass(slots=True)
class PieceSums:
    """Sums of consecutive pieces of `piece_bytes`, the last of which may be short. Bytes come in any portions."""

    piece_bytes: int
    finished: list[int] = field(default_factory=list)
    _sum: int = 0
    _count: int = 0

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        view = memoryview(data).cast("B")
        while len(view):
            taken = view[: self.piece_bytes - self._count]
            self._sum = zlib.crc32(taken, self._sum)
            self._count += len(taken)
            view = view[len(taken) :]
            if self._count == self.piece_bytes:
                self._end_piece()

    def end(self) -> list[int]:
        """All sums."""
        if self._count:
            self._end_piece()
        return self.finished

    def _end_piece(self) -> None:
        self.finished.append(self._sum)
        self._sum = self._count = 0
