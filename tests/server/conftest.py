from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.http_server import Running, running
from tusi.backends.fake import FakeBackend
from tusi.backends.local.backend import LocalBackend
from tusi.engine.config import EngineConfig
from tusi.processing.limits import MediaLimits


@pytest.fixture
def fake() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def served(fake: FakeBackend) -> Iterator[Running]:
    with running(fake) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_backend(tiny_model: Path) -> Iterator[LocalBackend]:
    engine = EngineConfig(max_model_len=8192, max_num_seqs=8, max_num_batched_tokens=256)
    limits = MediaLimits(allow_local_files=False)
    with LocalBackend.load(tiny_model, dtype="fp32", engine_config=engine, media_limits=limits) as backend:
        yield backend


@pytest.fixture(scope="session")
def tiny(tiny_backend: LocalBackend) -> Iterator[Running]:
    with running(tiny_backend) as server:
        yield server
