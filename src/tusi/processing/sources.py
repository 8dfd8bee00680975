"""Turns where a medium comes from (path, URL, data URL, bytes, file object) into an open binary file, within limits.

A `KeptFile` is an upload that this program itself keeps: it is read where it lies, when it is its turn.

Knows nothing of what is in the file; `image` and `video` do. PIL images and arrays never come here.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from tusi.core.errors import UnsupportedMedia
from tusi.core.types import Modality
from tusi.processing.http import fetch
from tusi.processing.limits import MediaLimits, check_limit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")
_SMALLER = "Send a smaller file, or raise the limit."
_MAX_FILES = {"image": "max_image_bytes", "video": "max_video_bytes"}


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that this program keeps for whoever uploaded it. Unlike a path in a request it may always be read.

    The same path never holds other bytes.
    """

    path: Path


def open_source(source: object, modality: Modality, limits: MediaLimits, *, param: str | None = None) -> BinaryIO:
    """Return a seekable binary file of the encoded medium. Raises UnsupportedMedia."""
    name = _MAX_FILES[modality]
    if isinstance(source, bytes | bytearray | memoryview):
        _check_size(len(source), name, limits, param)
        return io.BytesIO(bytes(source))
    if isinstance(source, KeptFile):
        return _open_kept(source.path, name, limits, param)
    if isinstance(source, os.PathLike):
        return _open_path(Path(os.fsdecode(source)), name, limits, param)
    if isinstance(source, str):
        return _open_string(source, name, limits, param)
    if callable(getattr(source, "read", None)):
        return _read_file_object(source, name, limits, param)
    raise _refusal(
        f"a {modality} source of type {type(source).__name__} cannot be read",
        "Give a path, an http(s) URL, a data URL, bytes, a binary file object, a PIL image or a uint8 array.",
        param,
    )


def decode_data_url(url: str, name: str, limits: MediaLimits, param: str | None = None) -> bytes:
    """Return the bytes of a base64 data URL. name: the field of limits that caps them."""
    header, comma, payload = url.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise _refusal(
            f"the data URL starting {url[:40]!r} is not base64",
            "Write data:image/png;base64,<data> (or the like) with standard base64.",
            param,
        )
    return decode_base64(payload, name, limits, param)


def decode_base64(payload: str, name: str, limits: MediaLimits, param: str | None = None) -> bytes:
    """Return the bytes behind standard base64 text; white space and percent escapes are forgiven."""
    # Before decoding: four characters make at most three bytes.
    _check_size(len(payload) * 3 // 4 - 2, name, limits, param)
    try:
        data = base64.b64decode(b"".join(unquote_to_bytes(payload).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnsupportedMedia(
            f"the data URL does not hold valid base64 ({error}). Encode the file's bytes with standard base64, "
            f"padding included.",
            param=param,
        ) from error
    _check_size(len(data), name, limits, param)
    return data


def _open_string(source: str, name: str, limits: MediaLimits, param: str | None) -> BinaryIO:
    match = _SCHEME.match(source)
    scheme = match.group(1).lower() if match else ""
    if scheme == "data":
        return io.BytesIO(decode_data_url(source, name, limits, param))
    if scheme in ("http", "https"):
        return io.BytesIO(fetch(source, max_bytes_limit=name, limits=limits, param=param))
    if scheme == "file":
        return _open_path(_path_of_file_url(source, param), name, limits, param)
    if match and match.group(2):
        raise _refusal(
            f"the URL {source[:80]!r} has the scheme {scheme!r}, which is not supported",
            "Use http, https or a data URL.",
            param,
        )
    return _open_path(Path(source), name, limits, param)


def _path_of_file_url(url: str, param: str | None) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UnsupportedMedia(f"{url[:80]!r} is not a valid URL ({error}). Correct it.", param=param) from error
    if parts.netloc not in ("", "localhost"):
        raise _refusal(
            f"the file URL {url[:80]!r} names the host {parts.netloc!r}", "Write file:///path/to/file.", param
        )
    return Path(unquote(parts.path))


def _open_path(path: Path, name: str, limits: MediaLimits, param: str | None) -> BinaryIO:
    if not limits.allow_local_files:
        raise _refusal(
            "local files may not be read here (allow_local_files is off)", "Send an http(s) URL or a data URL.", param
        )
    shown = str(path) if len(str(path)) <= 120 else str(path)[:117] + "..."
    try:
        resolved = path.expanduser().resolve(strict=True)
        _check_inside(resolved, shown, limits, param)
        # Non-blocking: opening a named pipe must not wait for a writer before it is seen to be no regular file.
        descriptor = os.open(resolved, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnsupportedMedia(
            f"the file {shown!r} cannot be opened ({reason}). Expected a readable file, a URL or a data URL. Check "
            f"the path.",
            param=param,
        ) from error
    status = os.fstat(descriptor)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(f"{shown!r} is not a regular file", "Give the path of a picture or video file.", param)
        _check_size(status.st_size, name, limits, param)
    except UnsupportedMedia:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _open_kept(path: Path, name: str, limits: MediaLimits, param: str | None) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnsupportedMedia(
            f"the uploaded file {path.name!r} cannot be read any more ({error.strerror}). Upload it again.", param=param
        ) from error
    try:
        _check_size(os.fstat(file.fileno()).st_size, name, limits, param)
    except UnsupportedMedia:
        file.close()
        raise
    return file


def _check_inside(path: Path, shown: str, limits: MediaLimits, param: str | None) -> None:
    if limits.allowed_local_path is None:
        return
    if not path.is_relative_to(Path(limits.allowed_local_path).expanduser().resolve()):
        raise _refusal(
            f"the file {shown!r} lies outside the one folder that may be read (allowed_local_path)",
            "Move it there, or send it as a data URL.",
            param,
        )


def _read_file_object(source: object, name: str, limits: MediaLimits, param: str | None) -> BinaryIO:
    limit: int = getattr(limits, name)
    try:
        data = source.read(limit + 1)  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        raise UnsupportedMedia(
            f"the file object cannot be read ({error}). Give one that is open for reading.", param=param
        ) from error
    if not isinstance(data, bytes | bytearray):
        raise _refusal(
            f"the file object gave {type(data).__name__}, not bytes", "Open the file in binary mode ('rb').", param
        )
    _check_size(len(data), name, limits, param)
    return io.BytesIO(bytes(data))


def _check_size(size: int, name: str, limits: MediaLimits, param: str | None) -> None:
    check_limit(size, limits, name, what="size of the file in bytes", advice=_SMALLER, param=param)


def _refusal(happened: str, advice: str, param: str | None) -> UnsupportedMedia:
    return UnsupportedMedia(f"{happened}. {advice}", param=param)
