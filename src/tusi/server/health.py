"""/health for those who route requests here, /metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from tusi.core.errors import EngineError
from tusi.server.errors import ErrorReply
from tusi.server.generation import Generator


def router(generator: Generator) -> APIRouter:
    """The endpoints. A step may take many seconds: /health does not wait for it, /metrics does, in a thread."""
    routes = APIRouter()

    @routes.get("/health", response_model=None)
    async def health() -> Response:
        """200 while the engine lives, 503 when it is dead."""
        if generator.facts.check_alive is not None:
            try:
                generator.facts.check_alive()
            except EngineError as error:
                return ErrorReply(status=503, message=str(error), code="engine_dead").response()
        return JSONResponse({"status": "ok"})

    @routes.get("/metrics", response_model=None)
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generator.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes
