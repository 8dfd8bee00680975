"""The server's description of itself is true, and nothing that it allows makes the server fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fixtures.http_server import Running, running
from tusi.backends.fake import FakeBackend
from tusi.backends.local.backend import LocalBackend
from tusi.engine.config import EngineConfig
from tusi.processing.limits import MediaLimits
from tusi.server.app import create_app
from tusi.server.config import ServerConfig

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def description(**config: Any) -> dict[str, Any]:
    """What a server of these settings says of itself; it is begun and ended, so that its state is put away."""

    async def described() -> dict[str, Any]:
        app = create_app(FakeBackend(), ServerConfig(**config))
        async with app.router.lifespan_context(app):
            return app.openapi()

    return asyncio.run(described())


api = schemathesis.openapi.from_dict(description())


@pytest.fixture(scope="module")
def small(tiny_model: Path) -> Iterator[Running]:
    """A real engine whose answers are short, as most requests do not say how long they shall be."""
    engine = EngineConfig(max_model_len=96, max_num_seqs=8, max_num_batched_tokens=96)
    limits = MediaLimits(allow_local_files=False, connect_timeout=0.2, total_timeout=0.5)
    with (
        LocalBackend.load(tiny_model, dtype="fp32", engine_config=engine, media_limits=limits) as backend,
        running(backend) as server,
    ):
        yield server


@api.parametrize()
@settings(max_examples=8, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_it_allows_is_answered_as_it_says(case: Any, small: Running) -> None:
    response = case.call(base_url=small.url, timeout=60)
    case.validate_response(response, checks=CHECKS)


def test_errors_keys_and_streams_are_described() -> None:
    for keys in ((), ("k",)):
        schema = description(api_keys=keys)
        assert ("security" in schema) == bool(keys)
        assert "422" not in str(schema["paths"])
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                assert operation["responses"]["400"] == {"$ref": "#/components/responses/400"}, path
        chat = schema["paths"]["/v1/chat/completions"]["post"]
        assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
        assert [*schema["paths"]["/metrics"]["get"]["responses"]["200"]["content"]] == ["text/plain"]
    assert schema["paths"]["/health"]["get"]["security"] == []
