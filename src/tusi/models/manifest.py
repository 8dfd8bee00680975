"""What a checkpoint folder should hold: the SHA-256 and size of every file, and what the model scored, in one file.

In: a folder. Out: its manifest, written or read, and what of the folder is not as the manifest says. The scores are
opaque here; `evals.verify` knows what they mean.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tusi.core.errors import CheckpointError

MANIFEST_FILE = "manifest.json"
FORMAT = 1
PACKED_SUFFIX = ".packed"
_CHUNK = 2**20


class FileRecord(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """What a folder should hold. scores: what `evals.verify` recorded of the model, if anything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    files: Mapping[str, FileRecord]
    scores: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file that is not as the manifest says."""

    name: str
    what: str


def describe_files(folder: Path) -> dict[str, FileRecord]:
    """Every file of the folder but the manifest, hidden ones left out."""
    return {name: _describe(folder / name) for name in _names(folder)}


def write_manifest(folder: Path, scores: Mapping[str, Any] | None = None) -> Manifest:
    """Write down what the folder holds now. Raises CheckpointError if that cannot be."""
    try:
        manifest = Manifest(files=describe_files(folder), scores=scores)
        fresh = folder / f".{MANIFEST_FILE}.new"
        fresh.write_text(json.dumps(manifest.model_dump(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(fresh, folder / MANIFEST_FILE)
    except OSError as error:
        raise CheckpointError(
            f"no manifest can be written into {folder} ({error.strerror or error}). Check the folder's permissions."
        ) from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest. Raises CheckpointError if there is none, or none that this version reads."""
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{folder} has no {MANIFEST_FILE} that can be read ({error.strerror or error}), so there is nothing to "
            "verify it against. `tusi verify FOLDER --record` writes one of the model as it is now."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path} is not a manifest ({place or 'file'}: {first['msg']}). Restore the file, or record it anew."
        ) from error
    if manifest.format != FORMAT:
        raise CheckpointError(
            f"{path} is of format {manifest.format}, and this version reads {FORMAT}. Use the one it came with."
        )
    return manifest


def check_files(folder: Path, manifest: Manifest) -> list[FileProblem]:
    """What differs, in the manifest's order; then files that it does not know.

    Packed files that it does not know are no problem: they are made after it, and have checksums of their own.
    """
    problems = []
    for name, wanted in manifest.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(FileProblem(name, "is missing"))
        elif path.stat().st_size != wanted.size:
            problems.append(FileProblem(name, f"has {path.stat().st_size} bytes instead of {wanted.size}"))
        elif (found := _describe(path).sha256) != wanted.sha256:
            problems.append(FileProblem(name, f"has SHA-256 {found[:16]}... instead of {wanted.sha256[:16]}..."))
    unknown = sorted(set(_names(folder)) - set(manifest.files))
    unknown = [name for name in unknown if not name.endswith(PACKED_SUFFIX)]
    return [*problems, *(FileProblem(name, "is not in the manifest") for name in unknown)]


def _names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [name for name in names if name != MANIFEST_FILE]


def _describe(path: Path) -> FileRecord:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return FileRecord(size=path.stat().st_size, sha256=digest.hexdigest())
