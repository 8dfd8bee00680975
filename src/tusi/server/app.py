"""Puts the server together: endpoints, errors, guard. `run` serves it until it is told to stop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from tusi.backends.protocol import Backend
from tusi.core.errors import ConfigError
from tusi.server import (
    chat_completions,
    completions,
    embeddings,
    errors,
    files,
    health,
    models,
    openapi,
    page,
    tokenize,
    tool_list,
)
from tusi.server.batches import endpoints as batches
from tusi.server.config import ServerConfig
from tusi.server.facts import ModelFacts
from tusi.server.generation import Generator
from tusi.server.guard import Guard
from tusi.server.kept import BATCH_ENDPOINTS, State
from tusi.server.responses import endpoints as responses
from tusi.server.server_tools import ServerTools

_BACKLOG = 2048


def create_app(backend: Backend, config: ServerConfig | None = None, tools: ServerTools | None = None) -> FastAPI:
    """An ASGI application over a backend, which stays the caller's to close, as do the tools.

    Media limits are the backend's and the tools': give them MediaLimits(allow_local_files=False) before strangers may
    ask.
    """
    config = config or ServerConfig()
    state = State(config)
    generator = Generator(backend, ModelFacts.of(backend), config, state.parts, tools)
    runner = state.batch_runner(generator)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        await run_in_threadpool(runner.close)
        generator.close()
        state.close()

    app = FastAPI(title="Tusi", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.install(app)
    for module in (chat_completions, completions, embeddings, models, tool_list, tokenize, health):
        app.include_router(module.router(generator))
    app.include_router(page.router())
    app.include_router(responses.router(generator, state.responses))
    app.include_router(files.router(state.files))
    app.include_router(batches.router(state.batches, state.files, endpoints=BATCH_ENDPOINTS, wake=runner.wake))
    openapi.install(app, config)
    app.add_middleware(Guard, config=config)
    return app


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port} ({error}). Choose another --port, or an address of this machine."
        ) from error
    return listener


def make_server(app: FastAPI, config: ServerConfig) -> uvicorn.Server:
    """A uvicorn server; on SIGTERM or SIGINT it takes nothing new and lets what runs end."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",  # httptools, which uvicorn prefers where it is installed, reads heads of any length
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=config.drain_seconds,
        )
    )


def run(
    backend: Backend,
    config: ServerConfig,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    tools: ServerTools | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and return. on_ready is called once, right before requests are taken."""
    server = make_server(create_app(backend, config, tools), config)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again once it has drained; without this nobody could clean up after that.
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    with listener:
        listener.listen(_BACKLOG)  # who reads "serving ..." may come at once
        on_ready()
        server.run(sockets=[listener])
