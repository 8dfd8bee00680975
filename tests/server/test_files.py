"""/v1/files with OpenAI's own client, and files in messages by their id."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fixtures.http_server import Running, running
from tests.server.test_chat_completions import data_url, model_of
from tusi.backends.fake import FakeBackend
from tusi.chat.messages import ImagePart, VideoPart
from tusi.core.errors import CapacityError
from tusi.processing.sources import KeptFile
from tusi.server.config import ServerConfig
from tusi.server.state.database import StateFolder
from tusi.server.state.files import FileNotFound, FileStore

PNG = base64.b64decode(data_url((112, 112)).partition(",")[2])


@pytest.fixture
def served(fake: FakeBackend) -> Iterator[Running]:
    with running(fake, ServerConfig(max_file_bytes=100_000, drain_seconds=5)) as server:
        yield server


def test_a_file_is_uploaded_listed_read_and_deleted(served: Running) -> None:
    client = served.openai()
    first = client.files.create(file=("../../cat.png", PNG), purpose="vision")
    second = client.files.create(
        file=("b.jsonl", b"{}\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (first.filename, first.bytes, first.purpose, first.expires_at) == ("cat.png", len(PNG), "vision", None)
    assert second.expires_at == second.created_at + 3600
    assert [file.id for file in client.files.list()] == [second.id, first.id]
    assert [file.id for file in client.files.list(limit=1, order="asc")] == [first.id, second.id]
    assert [file.id for file in client.files.list(purpose="vision")] == [first.id]
    assert client.files.retrieve(first.id) == first
    assert client.files.content(first.id).read() == PNG
    assert client.files.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError, match="upload it"):
        client.files.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(first.id)


def test_what_somebody_uploaded_is_never_shown_as_a_page(served: Running) -> None:
    file = served.openai().files.create(file=("x.html", b"<script>alert(1)</script>"), purpose="user_data")
    with served.http() as client:
        headers = client.get(f"/v1/files/{file.id}/content").headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("file_id", ["file-x", "..%2Fstate.sqlite", "..", "lock"])
def test_only_ids_name_files(served: Running, file_id: str) -> None:
    with served.http() as client:
        assert client.get(f"/v1/files/{file_id}/content").status_code in (404, 405)


def test_uploads_have_a_limit_of_their_own(served: Running) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        served.openai().files.create(file=("x", bytes(200_000)), purpose="vision")
    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({}, "purpose"),
        ({"purpose": "vision", "expires_after[seconds]": "3600"}, "expires_after"),
    ],
)
def test_uploads_are_checked(served: Running, form: dict[str, str], param: str) -> None:
    with served.http() as client:
        response = client.post("/v1/files", data=form, files={"file": ("x", b"x")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_files_of_messages_are_named_by_their_id(fake: FakeBackend, served: Running) -> None:
    client = served.openai()
    picture = client.files.create(file=("cat.png", PNG), purpose="vision").id
    video = client.files.create(file=("cat.mp4", b"\0\0\0\x18ftypmp42" + bytes(20)), purpose="user_data").id
    fake.queue("One.", "Two.")
    content: Any = [
        {"type": "text", "text": "What?"},
        {"type": "file", "file": {"file_id": picture}},
        {"type": "file", "file": {"file_id": video}},
        {"type": "file", "file": {"file_data": data_url(), "filename": "x.png"}},
    ]
    client.chat.completions.create(model="fake", messages=[{"role": "user", "content": content}])
    parts = fake.requests[-1].messages[0].content[1:]
    assert [type(part) for part in parts] == [ImagePart, VideoPart, ImagePart]
    kept, given = parts[0].source, parts[2].source  # type: ignore[union-attr]
    assert isinstance(kept, KeptFile)  # a message holds no more of an upload than where it lies
    assert (kept.path.read_bytes(), given) == (PNG, data_url())
    said: Any = [{"type": "input_image", "file_id": picture, "detail": "low"}, {"type": "input_file", "file_id": video}]
    client.responses.create(model="fake", input=[{"role": "user", "content": said}])
    parts = fake.requests[-1].messages[0].content
    assert [type(part) for part in parts] == [ImagePart, VideoPart]
    assert "max_pixels" in parts[0].options  # type: ignore[union-attr]


def test_a_file_is_the_same_picture_as_its_data_url(tiny: Running) -> None:
    client = tiny.openai()
    picture = client.files.create(file=("cat.png", PNG), purpose="vision").id
    answers = [
        client.chat.completions.create(
            model=model_of(tiny), messages=[{"role": "user", "content": [part]}], max_tokens=6, seed=1
        )
        for part in (
            {"type": "file", "file": {"file_id": picture}},
            {"type": "image_url", "image_url": {"url": data_url((112, 112))}},
        )
    ]
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


@pytest.mark.parametrize(
    ("part", "status", "param"),
    [
        ({"type": "file", "file": {"file_id": "file-none"}}, 404, "messages[0].content[0].file_id"),
        ({"type": "file", "file": "x"}, 400, "messages[0].content[0]"),
        ({"type": "file", "file": {}}, 400, "messages[0].content[0]"),
        ({"type": "file", "file": {"file_id": 3}}, 400, "messages[0].content[0]"),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}},
            400,
            "messages[0].content[0].file_data",
        ),
    ],
)
def test_parts_that_name_no_picture_are_refused(served: Running, part: object, status: int, param: str) -> None:
    with served.http() as client:
        response = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"P6 2 2 255 " + bytes(12), ImagePart),
        (b"\0\0\0\x08wide\0\0\0\0mdat", VideoPart),
        (b"\0\0\0\x18styp" + bytes(20), VideoPart),
        (b"0&\xb2u\x8ef\xcf\x11" + bytes(20), VideoPart),
        (b"\x1aE\xdf\xa3" + bytes(20), VideoPart),
    ],
    ids=["PPM", "MOV", "MP4 in pieces", "ASF", "Matroska"],
)
def test_what_a_file_is_is_seen_from_its_first_bytes(
    fake: FakeBackend, served: Running, data: bytes, kind: type[ImagePart] | type[VideoPart]
) -> None:
    file = served.openai().files.create(file=("x", data), purpose="vision")
    fake.queue("One.")
    part: Any = {"type": "file", "file": {"file_id": file.id}}
    served.openai().chat.completions.create(model="fake", messages=[{"role": "user", "content": [part]}])
    assert isinstance(fake.requests[-1].messages[0].content[0], kind)


def test_a_document_is_refused_with_the_remedy(served: Running) -> None:
    file = served.openai().files.create(file=("x.pdf", b"%PDF-1.7"), purpose="user_data")
    part: Any = {"type": "file", "file": {"file_id": file.id}}
    with pytest.raises(openai.BadRequestError, match="pages as pictures"):
        served.openai().chat.completions.create(model="fake", messages=[{"role": "user", "content": [part]}])


def test_a_full_store_takes_nothing_more(tmp_path: Path) -> None:
    store = FileStore(StateFolder(tmp_path), max_bytes=10)
    with (tmp_path / "source").open("wb+") as source:
        source.write(bytes(12))
        source.seek(0)
        store.add(source, filename="x", purpose="vision")
        with pytest.raises(CapacityError, match="Delete some"):
            store.add(source, filename="x", purpose="vision")


def test_what_has_expired_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(StateFolder(tmp_path), max_bytes=10)
    old = store.add(io.BytesIO(bytes(12)), filename="x", purpose="vision", lifetime=3600)
    monkeypatch.setattr("time.time", lambda: old.created_at + 3601.0)
    store.add(io.BytesIO(bytes(12)), filename="y", purpose="vision")
    assert not store.path(old.id).exists()


def test_a_file_that_goes_just_now_is_not_there(tmp_path: Path) -> None:
    store = FileStore(StateFolder(tmp_path))
    file = store.add(io.BytesIO(b"x"), filename="x", purpose="vision")
    assert store.head(file.id, 5) == b"x"
    store.path(file.id).unlink()
    with pytest.raises(FileNotFound, match="upload it"):
        store.head(file.id, 5)


def test_files_outlive_the_server_until_they_expire(fake: FakeBackend, tmp_path: Path) -> None:
    config = ServerConfig(state_dir=tmp_path, drain_seconds=5)
    with running(fake, config) as server:
        kept = server.openai().files.create(file=("x", b"x"), purpose="vision").id
    state = StateFolder(tmp_path)
    with state.transaction() as database:
        database.execute("INSERT INTO files SELECT 'file-old', 0, 1, filename, purpose, bytes FROM files")
    (tmp_path / "files" / "file-old").write_bytes(b"x")
    state.close()
    with running(fake, config) as server:
        client = server.openai()
        assert client.files.content(kept).read() == b"x"
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve("file-old")
