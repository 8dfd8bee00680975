from __future__ import annotations

import numpy as np
import pytest

from tusi.core.errors import ConfigError
from tusi.engine.config import EngineConfig
from tusi.engine.kv_cache import KVCacheShape, allocate_kv_caches, resolve_num_blocks

SHAPE = KVCacheShape(num_hidden_layers=3, num_key_value_heads=2, head_dim=8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_byte_budget_becomes_blocks_that_take_no_more_than_it(dtype: str) -> None:
    config = EngineConfig(kv_cache_bytes=100_000, kv_cache_dtype=dtype)  # type: ignore[arg-type]
    num_blocks = resolve_num_blocks(config, SHAPE)
    caches = allocate_kv_caches(config, SHAPE, num_blocks)
    total = sum(a.nbytes for cache in caches for a in cache.arrays if a is not None)
    assert 100_000 - SHAPE.bytes_per_block(config) < total <= 100_000


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("fp32", np.float32), ("bf16", np.uint16), ("auto", np.uint16), ("float32", np.float32), ("int8", np.int8)],
)
def test_arrays_have_the_shape_and_type_of_the_contract(dtype: str, expected: type) -> None:
    config = EngineConfig(num_blocks=5, kv_cache_dtype=dtype)  # type: ignore[arg-type]
    caches = allocate_kv_caches(config, SHAPE, resolve_num_blocks(config, SHAPE))
    assert len(caches) == 3
    for cache in caches:
        assert (cache.key_CMHS.shape, cache.value_CMSH.shape) == ((5, 2, 8, 16), (5, 2, 16, 8))
        assert (cache.key_CMHS.dtype, cache.value_CMSH.dtype) == (expected, expected)
        for scales in (cache.key_scales_CMS, cache.value_scales_CMS):
            assert (scales is None) == (dtype != "int8")
            assert scales is None or (scales.shape, scales.dtype) == ((5, 2, 16), np.float32)


def test_without_a_size_one_request_of_full_length_fits() -> None:
    assert resolve_num_blocks(EngineConfig(max_model_len=100), SHAPE) == 7


def test_a_budget_that_holds_nothing_is_refused_with_the_size_of_a_block() -> None:
    with pytest.raises(ConfigError, match="takes 3072 bytes: raise the budget"):
        resolve_num_blocks(EngineConfig(kv_cache_bytes=1000), SHAPE)


def test_more_memory_than_there_is_is_refused_with_advice() -> None:
    config = EngineConfig(num_blocks=1 << 44)
    with pytest.raises(ConfigError, match="lower max_model_len"):
        allocate_kv_caches(config, SHAPE, 1 << 44)
