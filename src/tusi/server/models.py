"""/v1/models: what is served, under which names; /v1/facts: what a client may want to know before it asks."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from tusi import __version__
from tusi.server.generation import Generator


def router(generator: Generator) -> APIRouter:
    """The endpoints."""
    routes = APIRouter()
    created = int(time.time())

    def card(name: str) -> dict[str, Any]:
        length = generator.facts.max_model_len
        return {"id": name, "object": "model", "created": created, "owned_by": "tusi", "max_model_len": length}

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """All names of the model."""
        return {"object": "list", "data": [card(name) for name in generator.model_names]}

    @routes.get("/v1/models/{name:path}")
    async def retrieve_model(name: str) -> dict[str, Any]:
        """One of them."""
        return card(generator.check_model(name))

    @routes.get("/v1/facts")
    async def facts() -> dict[str, Any]:
        """Names, precision and limits; null for what this backend cannot tell."""
        return {
            "object": "facts",
            "version": __version__,
            "models": [*generator.model_names],
            "precision": generator.facts.precision,
            "max_model_len": generator.facts.max_model_len,
            "can_switch_thinking": generator.facts.can_switch_thinking,
            "max_body_bytes": generator.config.max_body_bytes,
            "max_file_bytes": generator.config.max_file_bytes,
        }

    return routes
