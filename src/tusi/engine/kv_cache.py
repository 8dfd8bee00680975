"""Allocates the memory of the KV cache: one pair of arrays a layer, cut into blocks. Knows no requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tusi.core.errors import ConfigError
from tusi.core.kv_dtype import kv_bytes_per_head
from tusi.engine.config import EngineConfig
from tusi.models.attention_metadata import LayerKVCache, empty_kv_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCacheShape:
    """What a model needs a token: keys and values of [num_key_value_heads, head_dim] in each layer."""

    num_hidden_layers: int
    num_key_value_heads: int
    head_dim: int

    def bytes_per_block(self, config: EngineConfig) -> int:
        """Keys and values of all layers for block_size tokens."""
        heads = 2 * self.num_hidden_layers * self.num_key_value_heads
        return heads * kv_bytes_per_head(self.head_dim, config.kv_cache_format) * config.block_size


def resolve_num_blocks(config: EngineConfig, shape: KVCacheShape) -> int:
    """Blocks that the configuration asks for. Raises ConfigError if its byte budget does not hold two tokens."""
    if config.num_blocks is not None:
        num_blocks = config.num_blocks
    elif config.kv_cache_bytes is not None:
        num_blocks = config.kv_cache_bytes // shape.bytes_per_block(config)
    else:
        num_blocks = -(-config.max_model_len // config.block_size)
    if num_blocks * config.block_size < 2:
        raise ConfigError(
            f"the KV cache would hold {num_blocks * config.block_size} tokens (kv_cache_bytes={config.kv_cache_bytes}, "
            f"num_blocks={config.num_blocks}); a request needs 2 or more. "
            f"A block of {config.block_size} tokens takes {shape.bytes_per_block(config)} bytes: raise the budget."
        )
    return num_blocks


def allocate_kv_caches(config: EngineConfig, shape: KVCacheShape, num_blocks: int) -> Sequence[LayerKVCache]:
    """The arrays of every layer."""
    dims = (num_blocks, config.block_size, shape.num_key_value_heads, shape.head_dim)
    try:
        return tuple(empty_kv_cache(*dims, config.kv_cache_format) for _ in range(shape.num_hidden_layers))
    except MemoryError as error:
        total = num_blocks * shape.bytes_per_block(config)
        raise ConfigError(
            f"the KV cache of {num_blocks} blocks needs {total / 2**30:.1f} GiB, which this machine does not give; "
            f"lower max_model_len, kv_cache_bytes or num_blocks, or use kv_cache_dtype='int8'."
        ) from error
