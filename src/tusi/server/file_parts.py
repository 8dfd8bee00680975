"""Files in messages, by their id or within the message: they become pictures and videos before the message is read.

An upload stays on disk until it is decoded: a message that names it holds no more than its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tusi.core.errors import RequestError
from tusi.processing.sources import KeptFile
from tusi.server.state.files import FileStore

_PICTURE = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|P[1-6]\s|RIFF....WEBP|....ftyp(?:heic|heix|mif1|avif|avis)",
    re.DOTALL,
)
# MP4 and MOV begin with any of several boxes; the last ones are Matroska, ASF, AVI, MPEG, FLV, Ogg and MPEG-TS.
_VIDEO = re.compile(
    rb"....(?:ftyp|styp|moov|moof|mdat|wide|free|skip|pnot)|\x1aE\xdf\xa3|0&\xb2u\x8ef\xcf\x11|RIFF....AVI "
    rb"|\0\0\x01[\xba\xb3]|FLV\x01|OggS|\x47",
    re.DOTALL,
)
_HEAD_BYTES = 64
_DATA_URL = re.compile(r"data:(image|video)/", re.IGNORECASE)
_TYPES = ("file", "input_file", "input_image", "input_video")
_FIELDS = ("file_id", "file_data", "file_url", "filename", "detail")


class FileParts:
    """Reads files out of messages."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def resolved(self, messages: Any, *, param: str = "messages", fields: tuple[str, ...] = ("content",)) -> Any:
        """Messages (or items) with every part that names a file replaced. What has another shape is left as it is.

        fields: where a message keeps its parts. Raises RequestError and FileNotFound.
        """
        if not isinstance(messages, list):
            return messages
        return [self._message(message, f"{param}[{number}]", fields) for number, message in enumerate(messages)]

    def _message(self, message: Any, param: str, fields: tuple[str, ...]) -> Any:
        if not isinstance(message, Mapping):
            return message
        changed = {
            name: [self._part(part, f"{param}.{name}[{number}]") for number, part in enumerate(message[name])]
            for name in fields
            if isinstance(message.get(name), list)
        }
        return {**message, **changed}

    def _part(self, part: Any, param: str) -> Any:
        if not isinstance(part, Mapping) or part.get("type") not in _TYPES:
            return part
        kind = part["type"]
        body = part.get("file") if kind == "file" else part
        if not isinstance(body, Mapping):
            raise RequestError(f'{param}.file: give an object, such as {{"file_id": "file-..."}}.', param=param)
        if kind in ("input_image", "input_video") and body.get("file_id") is None:
            return part
        unknown = [name for name in body if name not in (*_FIELDS, "type") and body[name] is not None]
        sources = [name for name in ("file_id", "file_data", "file_url", kind + "_url") if body.get(name) is not None]
        if unknown or len(sources) != 1 or not isinstance(body.get(sources[0]), str):
            raise RequestError(
                f"{param}: a file is one of file_id, file_data (a data URL) and file_url, as text. "
                f"{f'{unknown[0]!r} is not known here. ' if unknown else ''}Give exactly one.",
                param=param,
            )
        source = body[sources[0]]
        if sources[0] == "file_id":
            return self._stored(source, body, f"{param}.file_id")
        return _given(source, body, f"{param}.{sources[0]}")

    def _stored(self, file_id: str, body: Mapping[str, Any], param: str) -> dict[str, Any]:
        head = self._files.head(file_id, _HEAD_BYTES, param=param)
        kept = KeptFile(self._files.path(file_id))
        if _PICTURE.match(head):
            return _medium("image", kept, body)
        if _VIDEO.match(head):
            return _medium("video", kept, body)
        raise RequestError(
            f"{param}: file {file_id!r} is neither a picture nor a video that is known here. Send the text of a "
            "document as text, or its pages as pictures.",
            param=param,
            code="unsupported_media",
        )


def _given(source: str, body: Mapping[str, Any], param: str) -> dict[str, Any]:
    found = _DATA_URL.match(source)
    if found is not None:
        return _medium(found.group(1).lower(), source, body)
    raise RequestError(
        f"{param}: only pictures and videos are read, as data URLs (data:image/..., data:video/...). Use image_url or "
        "video_url for an address; send the text of a document as text, or its pages as pictures.",
        param=param,
        code="unsupported_media",
    )


def _medium(kind: str, source: object, body: Mapping[str, Any]) -> dict[str, Any]:
    detail = {"detail": body["detail"]} if kind == "image" and body.get("detail") is not None else {}
    return {"type": kind, kind: source, **detail}
