"""How keys and values may lie in the cache: names, what they stand for, how many bytes they take."""

from __future__ import annotations

from typing import Literal, get_args

from tusi.core.errors import ConfigError

KVCacheDtype = Literal["float32", "bfloat16", "int8"]
"""int8 comes with one float32 scale a token and head."""

KVCacheDtypeChoice = Literal["auto", "float32", "bfloat16", "int8", "fp32", "bf16"]
"""What a user may ask for; auto is bfloat16. fp32 and bf16 are the names that weights have for the same."""

_OTHER_NAMES: dict[str, KVCacheDtype] = {"auto": "bfloat16", "fp32": "float32", "bf16": "bfloat16"}


def choose_kv_cache_dtype(asked: KVCacheDtypeChoice) -> KVCacheDtype:
    """The dtype that a choice stands for. Raises ConfigError if it is unknown."""
    chosen = _OTHER_NAMES.get(asked, asked)
    if chosen not in get_args(KVCacheDtype):
        raise ConfigError(f"kv_cache_dtype is {asked!r}; choose auto (bfloat16), float32, bfloat16 or int8.")
    return chosen  # type: ignore[return-value]  # just checked


def kv_bytes_per_head(head_dim: int, dtype: KVCacheDtype) -> int:
    """Bytes of one token's key (or value) of one head."""
    return {"float32": 4 * head_dim, "bfloat16": 2 * head_dim, "int8": head_dim + 4}[dtype]
