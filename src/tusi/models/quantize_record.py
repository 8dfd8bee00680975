"""The note that a quantising run leaves in its folder: from which source, with which options, which files are whole.

In: a folder. Out: whether a run may go on there, and which of its files are still what was written. Knows nothing of
tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tusi.core.errors import ConfigError
from tusi.models.checkpoint import Checkpoint
from tusi.models.safetensors_io import atomic_write

RECORD_FILE = ".tusi-quantize.json"


def source_fingerprint(checkpoint: Checkpoint) -> str:
    """Changes with the configuration and with the name, size, time or list of tensors of any file."""
    digest = hashlib.sha256((checkpoint.folder / "config.json").read_bytes())
    for path in checkpoint.files:
        status = path.stat()
        digest.update(f"{path.name}/{status.st_size}/{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class QuantizeRecord:
    """What a run has finished. Every change is on disk before the next file is begun."""

    def __init__(self, folder: Path, source: str, options: Mapping[str, Any], files: dict[str, str]) -> None:
        self.folder = folder
        self._head: dict[str, Any] = {"version": 1, "source": source, "options": dict(options)}
        self._files = files
        self._uncalibrated: dict[str, list[str]] = {}

    @classmethod
    def open(cls, folder: Path, source: str, options: Mapping[str, Any]) -> QuantizeRecord:
        """The record of a stopped run, or a new one for an empty folder. Raises ConfigError for any other folder."""
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return cls(folder, source, options, {})
        path = folder / RECORD_FILE
        if not folder.is_dir() or not path.exists():
            raise ConfigError(
                f"{folder} exists and is neither an empty folder nor a run of `tusi quantize` that was stopped; "
                "nothing is written over. Choose another folder."
            )
        record = cls(folder, source, options, {})
        try:
            raw = json.loads(path.read_text("utf-8"))
            files = {str(name): str(value) for name, value in raw.pop("files").items()}
            uncalibrated = {str(name): [*map(str, ones)] for name, ones in raw.pop("uncalibrated", {}).items()}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path} cannot be read ({error!r}). Remove {folder} and begin again.") from error
        if raw != record._head:
            what = "another source" if raw.get("source") != source else f"other options ({raw.get('options')})"
            raise ConfigError(
                f"{folder} holds a stopped run of `tusi quantize` with {what}; this one has the options "
                f"{dict(options)}. Go on with the same source and options, or choose another folder."
            )
        record._files, record._uncalibrated = files, uncalibrated
        return record

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Matrices of all finished files that too few calibration tokens reached."""
        return tuple(name for names in self._uncalibrated.values() for name in names)

    def is_sound(self, name: str) -> bool:
        """Whether a file was finished and is still what was written."""
        path = self.folder / name
        return name in self._files and path.is_file() and file_sha256(path) == self._files[name]

    def add(self, name: str, sha256: str, uncalibrated: Sequence[str] = ()) -> None:
        """Note a finished file, and which of its matrices too few calibration tokens reached."""
        self._files[name] = sha256
        self._uncalibrated[name] = list(uncalibrated)
        self.save()

    def save(self) -> None:
        """Write the note; from then on the folder is known for a run of these options."""
        with atomic_write(self.folder / RECORD_FILE) as file:
            state = {**self._head, "files": self._files, "uncalibrated": self._uncalibrated}
            file.write(json.dumps(state, indent=2).encode())

    def clean_partials(self) -> None:
        """Remove what a killed run had not finished."""
        for path in self.folder.glob(".*.partial"):
            path.unlink()

    def remove(self) -> None:
        """The run is complete."""
        (self.folder / RECORD_FILE).unlink()
