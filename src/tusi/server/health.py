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
        """200 while the engine (of replicas: one of them) takes requests, 503 otherwise."""
        if generator.facts.check_alive is not None:
            try:
                generator.facts.check_alive()
            except EngineError as error:
                return ErrorReply(status=503, message=str(error), code="engine_dead").response()
        if generator.facts.replicas is None:
            return JSONResponse({"status": "ok"})
        replicas = generator.facts.replicas()
        told = [{"index": one.index, "state": one.state, "load": one.load, "restarts": one.num_restarts}
                for one in replicas]  # fmt: skip
        is_whole = all(one.state == "ready" for one in replicas)
        return JSONResponse({"status": "ok" if is_whole else "degraded", "replicas": told})

    @routes.get("/metrics", response_model=None)
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generator.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes
