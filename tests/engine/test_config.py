from __future__ import annotations

import pytest

from tusi.core.errors import ConfigError
from tusi.engine.config import EngineConfig


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"max_model_len": 0}, "max_model_len is 0; it must be a whole number of 1 or more"),
        ({"max_model_len": 1}, "need 2 or more"),
        ({"block_size": -1}, "block_size is -1"),
        ({"max_num_seqs": 2.5}, "max_num_seqs is 2.5"),
        ({"max_waiting": True}, "max_waiting is True"),
        ({"kv_cache_dtype": "fp8"}, "choose auto .bfloat16., float32, bfloat16 or int8"),
        ({"num_blocks": 4, "kv_cache_bytes": 4096}, "leave one of them out"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "lower the first or raise the second"),
    ],
)
def test_a_wrong_limit_is_refused_with_advice(values: dict[str, object], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        EngineConfig(**values)  # type: ignore[arg-type]


def test_the_defaults_are_sound() -> None:
    assert EngineConfig().max_num_seqs <= EngineConfig().max_num_batched_tokens
