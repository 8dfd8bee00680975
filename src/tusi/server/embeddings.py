"""/v1/embeddings: a picture as the vector by which image search finds its like. Texts have none here, and are refused.

The vector is the mean of what the vision tower hands to the language model. The language model was never trained to
make one vector of a text, so that a text's would be a number without meaning.
"""

from __future__ import annotations

import base64
from typing import Any, Literal, NoReturn

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray

from tusi.chat.messages import ImagePart, TextPart
from tusi.chat.openai_content import parse_content
from tusi.core.errors import BackendUnavailable, RequestError
from tusi.server.body import JSONRoute
from tusi.server.generation import Generator
from tusi.server.schema import Body

MAX_PICTURES = 64


class EmbeddingRequest(Body):
    """Body of /v1/embeddings. input: a picture or a list of them, each a data URL or a part of a message."""

    input: str | dict[str, Any] | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


def router(generator: Generator) -> APIRouter:
    """The endpoint. No coroutine: every picture is fetched, decoded and looked at in turn."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post("/v1/embeddings")
    def create_embedding(body: EmbeddingRequest) -> dict[str, Any]:
        """Pictures as vectors of length 1."""
        model = generator.check_model(body.model)
        if body.dimensions is not None:
            raise RequestError(
                "dimensions: the vectors have the length they have. Leave it out.",
                param="dimensions",
                code="unsupported_parameter",
            )
        if generator.facts.embed_image is None:
            raise BackendUnavailable("this backend has no vision tower at hand. Serve a local model for embeddings.")
        vectors = [generator.facts.embed_image(picture) for picture in _pictures(generator, body.input)]
        write = _base64 if body.encoding_format == "base64" else _floats
        data = [
            {"object": "embedding", "index": number, "embedding": write(_normalised(vector))}
            for number, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}

    return routes


def _pictures(generator: Generator, given: str | dict[str, Any] | list[Any]) -> list[ImagePart]:
    parts = given if isinstance(given, list) else [given]
    if not 1 <= len(parts) <= MAX_PICTURES:
        raise RequestError(f"input: it holds {len(parts)} items. Give 1 to {MAX_PICTURES} pictures.", param="input")
    pictures = []
    for number, part in enumerate(parts):
        param = f"input[{number}]" if isinstance(given, list) else "input"
        if isinstance(part, str) and part[:11].lower() == "data:image/":
            part = {"type": "image_url", "image_url": part}
        elif not isinstance(part, dict):
            _refuse_text(param)
        [message] = generator.files.resolved([{"content": [part]}], param=param)
        [read] = parse_content(message["content"], param)
        if isinstance(read, TextPart):
            _refuse_text(param)
        if not isinstance(read, ImagePart):
            raise RequestError(f"{param}: a video has no vector here. Give pictures of it.", param=param)
        pictures.append(read)
    return pictures


def _refuse_text(param: str) -> NoReturn:
    raise RequestError(
        f"{param}: this model makes vectors of pictures alone, as it was not trained to make one of a text. For texts "
        'use an embedding model; give a data URL of a picture, or {"type": "image_url", "image_url": {"url": "..."}}.',
        param=param,
        code="unsupported_input",
    )


def _normalised(vector_D: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(vector_D))
    return vector_D / np.float32(norm) if norm else vector_D


def _floats(vector_D: NDArray[np.float32]) -> list[float]:
    return [float(value) for value in vector_D]


def _base64(vector_D: NDArray[np.float32]) -> str:
    return base64.b64encode(vector_D.astype("<f4").tobytes()).decode()
