"""Captioned pictures in an index: taken in folder by folder, found by the likeness of their vectors.

Whoever calls brings the function that makes a vector of a picture (the model's vision tower). An index keeps the vector
of a test picture, so that a search with another model is an error instead of nonsense. Search compares with every
picture: 100,000 of them take a fraction of a second; an approximate index would pay off far above that.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tusi.agent.index.captions import caption_of, read_captions
from tusi.agent.index.documents import Report, file_digest, folder_files
from tusi.agent.index.store import reading, writing
from tusi.core.errors import ConfigError, RequestError
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
THUMBNAIL_SIDE = 448
# Below this the mean of all vectors says too little of what they have in common.
_MIN_FOR_CENTRE = 8
_SAME_MODEL = 0.98

Embed = Callable[[Image.Image], NDArray[np.float32]]
"""A picture as one vector [D]."""


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """A picture that looks alike. likeness: cosine of the vectors, at most 1. thumbnail: an encoded picture."""

    source: str
    caption: str
    likeness: float
    thumbnail: bytes


def index_pictures(
    folder: Path,
    index: Path,
    embed: Embed,
    limits: MediaLimits,
    *,
    on_file: Callable[[Path], None] = lambda _path: None,
) -> Report:
    """Take in the pictures of a folder; run again, only what changed is embedded. Raises ConfigError.

    Captions: see `captions`. A picture that cannot be read is reported and left out.
    """
    files = folder_files(folder, SUFFIXES)
    captions = read_captions(folder)
    root = str(folder.resolve())
    report = Report()
    with writing(index) as connection:
        _check_model(connection, index, embed)
        rows = connection.execute("SELECT path, digest, caption FROM pictures WHERE root = ?", (root,))
        known = {path: (digest, caption) for path, digest, caption in rows}
        for path in files:
            on_file(path)
            name = path.relative_to(folder).as_posix()
            old = known.pop(name, None)
            caption = caption_of(path, name, captions)
            try:
                new = (file_digest(path), caption)
                if new == old:
                    report.unchanged += 1
                    continue
                picture = open_picture(path, limits)
                values = (root, name, *new, _packed(embed(picture)), _thumbnail(picture))
            except RequestError as error:
                report.failed[name] = str(error)
                connection.execute("DELETE FROM pictures WHERE root = ? AND path = ?", (root, name))
                continue
            connection.execute(
                "INSERT OR REPLACE INTO pictures (root, path, digest, caption, vector, thumbnail) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
            connection.commit()
            report.added += 1
        for name in known:
            connection.execute("DELETE FROM pictures WHERE root = ? AND path = ?", (root, name))
            report.removed += 1
    return report


def count_pictures(index: Path) -> int:
    """How many pictures an index holds. Raises ConfigError if it is none, or holds none."""
    with reading(index) as connection:
        count = int(connection.execute("SELECT count(*) FROM pictures").fetchone()[0])
    if not count:
        raise ConfigError(f"the index {index} holds no pictures. Add some: tusi index images FOLDER --index {index}")
    return count


class PictureIndex:
    """An index open for search: all vectors in memory. Several threads may search at once."""

    def __init__(self, index: Path, embed: Embed) -> None:
        self._path, self._embed = index, embed
        count_pictures(index)
        with reading(index) as connection:
            _check_model(connection, index, embed)
            rows = connection.execute("SELECT id, vector FROM pictures ORDER BY id").fetchall()
        if not rows:
            raise ConfigError(
                f"the index {index} holds no pictures. Add some: tusi index images FOLDER --index {index}"
            )
        self._ids = [row for row, _ in rows]
        self._vectors_ND = np.stack([np.frombuffer(vector, np.float16) for _, vector in rows]).astype(np.float32)
        # What all pictures share says nothing about any of them.
        self._centre_D = self._vectors_ND.mean(axis=0) * (len(rows) >= _MIN_FOR_CENTRE)
        self._vectors_ND = _unit(self._vectors_ND - self._centre_D)

    def search(self, picture: Image.Image, *, limit: int = 3) -> list[FoundPicture]:
        """The pictures that look most alike, best first."""
        query_D = _unit(_unit(self._embed(picture)) - self._centre_D)
        likeness_N = self._vectors_ND @ query_D
        best = np.argsort(-likeness_N, kind="stable")[:limit]
        with reading(self._path) as connection:
            return [self._found(connection, int(i), float(likeness_N[i])) for i in best]

    def _found(self, connection: sqlite3.Connection, place: int, likeness: float) -> FoundPicture:
        query = "SELECT path, caption, thumbnail FROM pictures WHERE id = ?"
        path, caption, thumbnail = connection.execute(query, (self._ids[place],)).fetchone()
        return FoundPicture(path, caption, likeness, thumbnail)


def _check_model(connection: sqlite3.Connection, index: Path, embed: Embed) -> None:
    """Compare what this model makes of a test picture with what the index's model made of it; keep it if it is new."""
    probe_D = embed(_test_picture())
    row = connection.execute("SELECT value FROM settings WHERE name = 'probe'").fetchone()
    if row is None:
        connection.execute("INSERT INTO settings (name, value) VALUES ('probe', ?)", (_packed(probe_D),))
        return
    kept_D = np.frombuffer(row[0], np.float16).astype(np.float32)
    if kept_D.shape != probe_D.shape or float(_unit(kept_D) @ _unit(probe_D)) < _SAME_MODEL:
        raise ConfigError(
            f"the pictures in {index} were indexed with another model; vectors of two models cannot be compared. Use "
            "that model, or make the index again in a new file."
        )


def _test_picture() -> Image.Image:
    """Gradients and edges: something that two vision towers see differently."""
    y, x = np.mgrid[0:112, 0:112]
    checks = (x // 14 + y // 28) % 2 * 120
    return Image.fromarray(np.stack([x * 2, y * 2, checks], axis=2).astype(np.uint8))


def _packed(vector_D: NDArray[np.float32]) -> bytes:
    return _unit(vector_D).astype(np.float16).tobytes()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit


def _thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()
