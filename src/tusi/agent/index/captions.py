"""What is known of the pictures in a folder, from the files that people keep beside them.

In this order: `metadata.jsonl` or `metadata.csv` in the folder (as Hugging Face's image folders have it: `file_name`,
and `text` or `caption`), a text file of the picture's name (`cat.txt` or `cat.jpg.txt`), the picture's own name.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path

from tusi.core.errors import ConfigError

MAX_CAPTION_CHARS = 2000


def read_captions(folder: Path) -> dict[str, str]:
    """File name -> caption, from the folder's metadata file; empty if there is none. Raises ConfigError."""
    for name, read in (("metadata.jsonl", _read_jsonl), ("metadata.csv", _read_csv)):
        path = folder / name
        if path.is_file():
            try:
                return read(path)
            except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
                raise ConfigError(
                    f"{path} cannot be read ({type(error).__name__}: {error}). Each entry needs file_name and text (or "
                    "caption), in UTF-8."
                ) from error
    return {}


def caption_of(path: Path, name: str, captions: Mapping[str, str]) -> str:
    """The caption of one picture. name: its path within the folder. Raises ConfigError for an unreadable text file."""
    if name in captions:
        return captions[name][:MAX_CAPTION_CHARS]
    for beside in (path.with_suffix(".txt"), path.with_name(path.name + ".txt")):
        if beside.is_file():
            try:
                return beside.read_text(encoding="utf-8-sig").strip()[:MAX_CAPTION_CHARS]
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"the caption {beside} cannot be read ({error}). Write it in UTF-8.") from error
    return re.sub(r"[\s_-]+", " ", path.stem).strip() or path.name


def _read_jsonl(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return dict(_entry(json.loads(line)) for line in lines if line.strip())


def _read_csv(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return dict(_entry(row) for row in csv.DictReader(file))


def _entry(fields: Mapping[str, object]) -> tuple[str, str]:
    return str(fields["file_name"]), str(fields["text"] if "text" in fields else fields["caption"])
