from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Run
from tusi.backends.fake import FakeBackend
from tusi.backends.local.backend import LocalBackend
from tusi.chat.messages import Message, TextPart
from tusi.cli import session
from tusi.cli.session import AnswerOptions, ModelOptions, make_request
from tusi.core.errors import ConfigError
from tusi.engine.sampling_params import SamplingParams
from tusi.models.pack import pack_checkpoint
from tusi.models.random_checkpoint import write_random_checkpoint

MESSAGES = (Message(role="user", content=(TextPart("Hi"),)),)


def test_options_reach_the_request_and_nothing_else_changes() -> None:
    backend = FakeBackend(["A."])
    backend.default_sampling_params = SamplingParams(temperature=0.6, top_p=0.9)  # type: ignore[attr-defined]
    options = AnswerOptions(
        max_tokens=7, seed=3, thinking=False, thinking_budget=5, json_schema="{}", mm_processor_kwargs={"fps": 4.0}
    )
    request = make_request(backend, MESSAGES, options)
    assert request.messages == MESSAGES
    assert request.template_kwargs == {"enable_thinking": False}
    assert request.mm_processor_kwargs == {"fps": 4.0}
    params = request.sampling_params
    assert (params.temperature, params.top_p, params.max_tokens, params.seed) == (0.6, 0.9, 7, 3)
    assert params.thinking_budget == 5
    assert params.structured_outputs is not None
    assert make_request(backend, MESSAGES, AnswerOptions(temperature=0.0)).sampling_params.temperature == 0.0
    assert make_request(backend, MESSAGES, AnswerOptions()).template_kwargs == {}


def test_the_flag_wins_over_the_environment_and_that_over_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.choose_model(None) == "tusi-mini"
    monkeypatch.setenv("TUSI_MODEL", "from-environment")
    assert session.choose_model(None) == "from-environment"
    assert session.choose_model("from-flag") == "from-flag"


def test_many_conversations_get_an_engine_with_room_for_them() -> None:
    assert session.crowd_config(8) is None
    config = session.crowd_config(64)
    assert config is not None
    assert config.max_num_seqs == 64
    assert config.max_num_batched_tokens >= 1024
    assert config.num_blocks is not None
    assert config.num_blocks * config.block_size >= 64 * 600


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_the_engine_gets_the_dtype_of_its_cache(dtype: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="tusi"):
        session.load_backend("random", ModelOptions(model="random", kv_cache_dtype=dtype)).close()
    assert f"KV blocks of 16 tokens ({dtype})" in caplog.text


@pytest.mark.parametrize("command", [("ask", "Hi?"), ("chat",)])
def test_ask_and_chat_pass_on_how_weights_lie(
    command: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ModelOptions] = []

    def load(name: str, options: ModelOptions) -> FakeBackend:
        seen.append(options)
        return FakeBackend(["A."])

    monkeypatch.setattr(session, "load_backend", load)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    run(*command, "--model", "some", "--weight-memory", "mmap", "--activations", "float32")
    assert [(options.weight_memory, options.activations) for options in seen] == [("mmap", "float32")]


@pytest.mark.parametrize("num_replicas", [None, 1])
def test_what_cannot_be_honoured_is_refused(num_replicas: int | None) -> None:
    with pytest.raises(ConfigError, match="Make it with `tusi pack"):
        session.load_backend("random", ModelOptions(weight_memory="mmap", num_replicas=num_replicas))
    with pytest.raises(ConfigError, match="only products over integer weights"):
        session.load_backend("random", ModelOptions(activations="int8", num_replicas=num_replicas))


def test_replicas_map_the_packed_file_and_take_activations_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_random_checkpoint(tmp_path / "model")
    pack_checkpoint(folder, "int4")
    begun: list[Callable[[], LocalBackend]] = []
    monkeypatch.setattr(
        "tusi.backends.replicas.backend.ReplicaBackend", lambda load, *rest, **more: begun.append(load) or FakeBackend()
    )
    options = ModelOptions(dtype="int4", num_replicas=2, weight_memory="mmap", activations="float32")
    session.load_backend(str(folder), options)
    models: list[Any] = []
    monkeypatch.setattr(LocalBackend, "__init__", lambda self, frontend, model, *rest, **more: models.append(model))
    pickle.loads(pickle.dumps(begun[0]))()  # as it reaches the process
    head = models[0].lm_head
    assert head.activations == "float32"
    owner = head.codes
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner, memoryview)
    assert str(folder) in Path("/proc/self/maps").read_text()


def test_random_is_loudly_called_noise(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    with session.opened_backend(ModelOptions(model="random")):
        pass
    assert "RANDOM" in capsys.readouterr().err
    with session.opened_backend(ModelOptions(model="other")):
        pass
    assert "RANDOM" not in capsys.readouterr().err


def test_schema_files(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    with pytest.raises(ConfigError, match=r"cannot be read .*Check the path"):
        session.read_schema(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        session.read_schema(path)
    path.write_text('{"type": "object"}')
    assert session.read_schema(path) == '{"type": "object"}'
