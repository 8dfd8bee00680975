"""Every kind of source, and each way in which one can be wrong."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest

from tests.fixtures.media_server import media_server
from tusi.core.errors import UnsupportedMedia
from tusi.processing.limits import MediaLimits
from tusi.processing.sources import KeptFile, open_source

DATA = bytes(range(256)) * 4
ENCODED = base64.b64encode(DATA).decode()
LIMITS = MediaLimits(max_image_bytes=2000)


def read(source: object, limits: MediaLimits = LIMITS) -> bytes:
    with open_source(source, "image", limits, param="images[0]") as file:
        return file.read()


def refused(source: object, match: str, limits: MediaLimits = LIMITS) -> None:
    with pytest.raises(UnsupportedMedia, match=match) as caught:
        read(source, limits)
    assert caught.value.param == "images[0]"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ünï 图.png"
    file.write_bytes(DATA)
    return file


def test_every_kind_gives_the_same_bytes(path: Path) -> None:
    spaced = "\n".join(ENCODED[i : i + 60] for i in range(0, len(ENCODED), 60))
    for source in (
        path,
        str(path),
        path.as_uri(),
        KeptFile(path),
        DATA,
        bytearray(DATA),
        memoryview(DATA),
        io.BytesIO(DATA),
        f"data:image/png;base64,{ENCODED}",
        f"DATA:image/png;name=a;BASE64,{spaced}",
        "data:;base64," + ENCODED.replace("+", "%2B").replace("/", "%2F"),
    ):
        assert read(source) == DATA
    with media_server() as server:
        server.pages["/a"] = (200, {}, DATA)
        assert read(server.url + "/a", MediaLimits(allow_private_addresses=True)) == DATA


def test_size_limit_of_every_kind(path: Path) -> None:
    small = MediaLimits(max_image_bytes=1000)
    for source in (path, KeptFile(path), DATA, io.BytesIO(DATA), f"data:image/png;base64,{ENCODED}"):
        refused(source, r"over the limit of 1,000 \(max_image_bytes\). Send a smaller file", small)
    assert open_source(DATA, "video", small).read() == DATA


def test_local_files_can_be_forbidden(path: Path) -> None:
    for source in (path, str(path), path.as_uri()):
        refused(source, "allow_local_files is off.*data URL", MediaLimits(allow_local_files=False))


def test_what_was_uploaded_is_read_all_the_same(path: Path) -> None:
    assert read(KeptFile(path), MediaLimits(allow_local_files=False)) == DATA
    path.unlink()
    refused(KeptFile(path), "cannot be read any more .*Upload it again")


def test_local_files_can_be_confined(path: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "in.png").write_bytes(DATA)
    (allowed / "link.png").symlink_to(path)
    confined = MediaLimits(allowed_local_path=str(allowed))
    assert read(allowed / "in.png", confined) == DATA
    for outside in (path, allowed / "link.png", f"{allowed}/../{path.name}", tmp_path / "allowed2"):
        refused(outside, "outside the one folder|cannot be opened", confined)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("no/such/file.png", "cannot be opened.*Check the path"),
        ("a" * 5000, "cannot be opened"),
        ("bad\0name", "cannot be opened"),
        ("", "not a regular file|cannot be opened"),
        ("ftp://host/x.png", "scheme 'ftp'.*http, https or a data URL"),
        ("s3://bucket/x.png", "scheme 's3'"),
        ("file://server/share/x.png", "names the host 'server'"),
        ("data:image/png,abc", "not base64"),
        ("data:image/png;base64", "not base64"),
        ("data:image/png;base64,abc", "valid base64"),
        ("data:image/png;base64,a_b-", "valid base64"),
        ("data:image/png;base64,é", "valid base64"),
        (3.5, "type float cannot be read.*Give a path"),
        (None, "type NoneType cannot be read"),
        ({"url": "x"}, "type dict cannot be read"),
        (io.StringIO("text"), "gave str, not bytes.*'rb'"),
    ],
)
def test_bad_sources(source: object, match: str) -> None:
    refused(source, match)


def test_closed_file_object() -> None:
    file = io.BytesIO(DATA)
    file.close()
    refused(file, "cannot be read")


def test_folders_pipes_and_devices_are_no_media(tmp_path: Path) -> None:
    refused(tmp_path, "not a regular file|cannot be opened")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused("/dev/zero", "not a regular file")
