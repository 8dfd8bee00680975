from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tusi.backends.fake import FakeBackend
from tusi.chat.messages import Message, TextPart
from tusi.cli import session
from tusi.cli.session import AnswerOptions, ModelOptions, make_request
from tusi.core.errors import ConfigError
from tusi.engine.sampling_params import SamplingParams

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
