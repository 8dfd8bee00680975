"""How one batch of packed tokens lies over requests and cache blocks; vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tusi.core.kv_dtype import KVCacheDtype
from tusi.kernels import LayerKVCache
from tusi.quant.memory import zeros_array

__all__ = ["AttentionMetadata", "LayerKVCache", "empty_kv_cache"]


def empty_kv_cache(blocks: int, block_size: int, kv_heads: int, head_dim: int, dtype: KVCacheDtype) -> LayerKVCache:
    """One layer's cache. Zeros, so that memory is committed as it is used.

    Aligned, so that a token's values touch no cache line more than they fill.
    """
    scales = (blocks, kv_heads, block_size)
    items = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}[dtype]
    keys = zeros_array((blocks, kv_heads, head_dim, block_size), items)
    values = zeros_array((*scales, head_dim), items)
    if dtype != "int8":
        return LayerKVCache(keys, values)
    return LayerKVCache(keys, values, zeros_array(scales, np.float32), zeros_array(scales, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMetadata:
    """T packed query tokens of R requests.

    query_start_loc_R1: request r owns packed tokens query_start_loc[r] .. query_start_loc[r+1].
    seq_lens_R: tokens of request r whose keys are in the cache once this batch's are stored.
    block_table_RB: block ids of each request, in order (rows padded with 0).
    slot_mapping_T: cache slot (block id * block_size + offset) of each packed token.
    """

    query_start_loc_R1: NDArray[np.int32]
    seq_lens_R: NDArray[np.int32]
    block_table_RB: NDArray[np.int32]
    slot_mapping_T: NDArray[np.int64]
