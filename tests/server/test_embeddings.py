"""/v1/embeddings: pictures as vectors, texts refused."""

from __future__ import annotations

import base64

import numpy as np
import openai
import pytest

from tests.fixtures.http_server import Running
from tests.server.test_chat_completions import data_url, model_of
from tusi.backends.local.backend import LocalBackend
from tusi.chat.messages import ImagePart


def test_a_picture_is_its_vector_of_length_one(tiny: Running, tiny_backend: LocalBackend) -> None:
    client, model = tiny.openai(), model_of(tiny)
    pictures = [data_url((56, 56)), data_url((112, 56))]
    found = client.embeddings.create(model=model, input=pictures)
    assert [item.index for item in found.data] == [0, 1]
    for picture, item in zip(pictures, found.data, strict=True):
        vector = tiny_backend.embed_image(ImagePart(picture))
        np.testing.assert_allclose(item.embedding, vector / np.linalg.norm(vector), rtol=1e-5)
    floats = client.embeddings.create(model=model, input=pictures[0], encoding_format="float").data[0].embedding
    np.testing.assert_allclose(floats, found.data[0].embedding, rtol=1e-6)


def test_pictures_come_as_parts_and_files_too(tiny: Running) -> None:
    picture = data_url((56, 56))
    data = base64.b64decode(picture.partition(",")[2])
    file = tiny.openai().files.create(file=("x.png", data), purpose="vision")
    asked = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "file", "file": {"file_id": file.id}},
    ]
    with tiny.http() as client:
        found = client.post("/v1/embeddings", json={"input": asked}).json()["data"]
        one = client.post("/v1/embeddings", json={"input": asked[0]}).json()["data"]
    np.testing.assert_allclose(found[0]["embedding"], found[1]["embedding"])
    np.testing.assert_allclose(found[0]["embedding"], one[0]["embedding"])


@pytest.mark.parametrize("given", ["a cat", ["a", "cat"], [1, 2, 3], [[1]], [{"type": "text", "text": "a cat"}], []])
def test_texts_are_refused_with_a_reason(tiny: Running, given: object) -> None:
    with tiny.http() as client:
        response = client.post("/v1/embeddings", json={"input": given})
    assert response.status_code == 400
    assert "picture" in response.json()["error"]["message"]


def test_dimensions_cannot_be_chosen(tiny: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="Leave it out"):
        tiny.openai().embeddings.create(model=model_of(tiny), input=data_url(), dimensions=8)
