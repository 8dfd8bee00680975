"""The limits an engine works within: frozen, checked when made. Knows nothing of a model or of tensors."""

from __future__ import annotations

from dataclasses import dataclass

from tusi.core.errors import ConfigError
from tusi.core.kv_dtype import KVCacheDtype, KVCacheDtypeChoice, choose_kv_cache_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Limits of one engine. Raises ConfigError naming the field that is wrong.

    max_model_len: prompt and output of one request, in tokens.
    max_num_seqs: requests that run at once. max_waiting: requests that may queue behind them.
    max_num_batched_tokens: tokens of one step; longer prompts are prefilled in chunks of what decodes leave of it.
    num_blocks, kv_cache_bytes: size of the KV cache (at most one of the two); neither: room for max_model_len tokens.
    kv_cache_dtype: float32 keeps every bit of the keys and values; bfloat16 (auto) halves their memory, int8 nearly
    halves it again.
    encoder_cache_tokens: media features kept for reuse. A single medium that is larger is still served: it is held
    alone, so the cache takes at most max(encoder_cache_tokens, largest medium) tokens of memory.
    """

    max_model_len: int = 32768
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 1024
    max_waiting: int = 1024
    block_size: int = 16
    num_blocks: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: KVCacheDtypeChoice = "auto"
    enable_prefix_caching: bool = True
    encoder_cache_tokens: int = 16384

    @property
    def kv_cache_format(self) -> KVCacheDtype:
        """What kv_cache_dtype stands for."""
        return choose_kv_cache_dtype(self.kv_cache_dtype)

    def __post_init__(self) -> None:
        for name in (
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
            "max_waiting",
            "block_size",
            "num_blocks",
            "kv_cache_bytes",
            "encoder_cache_tokens",
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of 1 or more.")
        choose_kv_cache_dtype(self.kv_cache_dtype)
        if self.num_blocks is not None and self.kv_cache_bytes is not None:
            raise ConfigError(
                f"num_blocks ({self.num_blocks}) and kv_cache_bytes ({self.kv_cache_bytes}) both set the size of the "
                f"KV cache; leave one of them out."
            )
        if self.max_model_len < 2:
            raise ConfigError("max_model_len is 1; a prompt token and an output token need 2 or more.")
        # Each running decode takes one token of a step; were there more of them, some would have to sit out.
        if self.max_num_seqs > self.max_num_batched_tokens:
            raise ConfigError(
                f"max_num_seqs ({self.max_num_seqs}) is more than max_num_batched_tokens "
                f"({self.max_num_batched_tokens}); lower the first or raise the second."
            )
