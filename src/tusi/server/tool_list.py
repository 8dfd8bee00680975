"""/v1/tools: what the server runs itself when a request asks for it. Ours; OpenAI has no such list."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tusi.server.generation import Generator


def router(generator: Generator) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.get("/v1/tools")
    async def list_tools() -> dict[str, Any]:
        """The built-in tools, with the schemas that the model is shown."""
        return {
            "object": "list",
            "data": [
                {
                    "id": tool.name,
                    "object": "tool",
                    "type": "builtin",
                    "description": tool.schema["function"].get("description", ""),
                    "parameters": tool.schema["function"].get("parameters", {}),
                }
                for tool in generator.tools.all
            ],
        }

    return routes
