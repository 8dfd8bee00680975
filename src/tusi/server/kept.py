"""What one server keeps, put together: the state folder, its stores, and the runner of batches over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tusi.core.errors import EngineError
from tusi.server.batches.lines import Endpoint
from tusi.server.batches.runner import PRIORITY, BatchRunner
from tusi.server.chat_completions import chat_job
from tusi.server.completions import completion_job
from tusi.server.config import ServerConfig
from tusi.server.file_parts import FileParts
from tusi.server.generation import Generator, Job
from tusi.server.responses.endpoints import response_job
from tusi.server.responses.schema import ResponsesRequest
from tusi.server.schema import ChatCompletionRequest, CompletionRequest
from tusi.server.state.batches import BatchStore
from tusi.server.state.database import StateFolder
from tusi.server.state.files import FileStore
from tusi.server.state.responses import ResponseStore

BATCH_ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


class State:
    """The stores of one server. Raises ConfigError if their folder cannot be used."""

    def __init__(self, config: ServerConfig) -> None:
        self._folder = StateFolder(config.state_dir)
        self.responses = ResponseStore(self._folder)
        self.files = FileStore(self._folder)
        self.batches = BatchStore(self._folder)
        self.parts = FileParts(self.files)

    def batch_runner(self, generator: Generator) -> BatchRunner:
        """What runs batches with this server's model."""

        def with_generator(job: Callable[..., Job]) -> Callable[[Any], Job]:
            return lambda body: job(generator, body, priority=PRIORITY)

        def response(generator: Generator, body: ResponsesRequest, priority: int) -> Job:
            return response_job(generator, self.responses, body, priority)

        endpoints = (
            Endpoint(ChatCompletionRequest, with_generator(chat_job)),
            Endpoint(CompletionRequest, with_generator(completion_job)),
            Endpoint(ResponsesRequest, with_generator(response)),
        )
        return BatchRunner(
            self._folder,
            self.batches,
            self.files,
            dict(zip(BATCH_ENDPOINTS, endpoints, strict=True)),
            concurrency=generator.config.batch_concurrency,
            is_lost=lambda: _is_dead(generator),
        )

    def close(self) -> None:
        """Close the database."""
        self._folder.close()


def _is_dead(generator: Generator) -> bool:
    check = generator.facts.check_alive
    if check is None:
        return False
    try:
        check()
    except EngineError:
        return True
    return False
