"""How much memory a model takes here, from its configuration alone: before a download, before a load.

In: a configuration, a weight format, a context length, a number of patches. Out: bytes by component. Counts what this
runtime allocates (float32 activations, the KV cache as asked, the formats of `parameters.format_of`), not what others
would. Knows nothing of this machine: who asks compares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from tusi.core.kv_dtype import KVCacheDtype, kv_bytes_per_head
from tusi.core.types import WeightFormat
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.key_table import TensorSpec, tensor_specs
from tusi.models.parameters import format_of
from tusi.models.quantization import Quantization
from tusi.quant.packed import packed_width
from tusi.quant.weights import DEFAULT_GROUP_SIZE, weight_nbytes

PROGRAM_BYTES = 200 * 2**20
"""Python, its packages, the tokenizer. A process that read a clip and a picture with a tiny checkpoint took 165 MB."""

# Arrays of [patches, width] float32 that are alive at once in a vision block's attention: residual, norm, q, k and v,
# the result. In its feed-forward part two of them are: residual and norm. The resampler stays below that.
_VISION_ARRAYS = 6
_VISION_MLP_ROWS = 4096  # vision_tower._MLP_ROWS
_DECODER_ARRAYS = 4  # residual, norm, sum, output: [tokens, hidden_size] float32
_LOGITS_ARRAYS = 4  # logits, and the sampler's copies: [vocab_size] float32


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes by what they are for."""

    weights: Mapping[str, int]
    kv_cache: int
    vision_activations: int
    decoder_activations: int
    program: int = PROGRAM_BYTES

    @property
    def weights_total(self) -> int:
        return sum(self.weights.values())

    @property
    def total(self) -> int:
        return self.weights_total + self.fixed_without_weights + self.kv_cache

    @property
    def fixed_without_weights(self) -> int:
        """What is needed whatever the context and the precision."""
        return self.vision_activations + self.decoder_activations + self.program


def estimate_memory(
    config: Ernie4_5_VLMoeConfig,
    weight_format: WeightFormat,
    *,
    context: int,
    num_patches: int = 0,
    batched_tokens: int = 1024,
    group_size: int = DEFAULT_GROUP_SIZE,
    kv_cache_dtype: KVCacheDtype = "bfloat16",
) -> MemoryEstimate:
    """Peak memory of one request of `context` tokens whose largest picture (or video) has `num_patches` patches.

    batched_tokens: tokens of one prefill step (`EngineConfig.max_num_batched_tokens`).
    """
    return MemoryEstimate(
        weights=_weights_by_component(config, weight_format, group_size),
        kv_cache=kv_cache_bytes_per_token(config, kv_cache_dtype) * context,
        vision_activations=_vision_bytes(config, num_patches),
        decoder_activations=_decoder_bytes(config, min(batched_tokens, context)),
    )


def count_parameters(config: Ernie4_5_VLMoeConfig) -> dict[str, int]:
    """Parameters by component; a tied head counts once, under the token embedding."""
    counts: dict[str, int] = {}
    for spec in tensor_specs(config).values():
        counts[spec.component] = counts.get(spec.component, 0) + spec.size
    return counts


def checkpoint_bytes(config: Ernie4_5_VLMoeConfig) -> int:
    """Size of the published files: bf16, but routers and correction biases float32."""
    if config.quantization is not None:
        return sum(_quantized_bytes(spec, config.quantization, on_disk=True) for spec in tensor_specs(config).values())
    return sum(spec.size * (4 if _is_stored_float32(spec) else 2) for spec in tensor_specs(config).values())


def weight_bytes(spec: TensorSpec, asked: WeightFormat, group_size: int = DEFAULT_GROUP_SIZE) -> int:
    """Resident bytes of one tensor when the model is loaded as `asked`."""
    if len(spec.shape) < 2:
        return 4 * spec.size
    n, k = spec.shape[-2:]
    return math.prod(spec.shape[:-2]) * weight_nbytes(format_of(spec.kind, asked), n, k, group_size)


def _quantized_bytes(spec: TensorSpec, quantization: Quantization, *, on_disk: bool) -> int:
    """Bytes of a tensor of a quantised checkpoint: in its files, or resident (scales as bfloat16)."""
    total = 0
    for part in spec.parts:
        group = quantization.group_of(part.disk.removesuffix(".weight"), spec.kind)
        rows, width = math.prod(part.disk_shape[:-1]), part.disk_shape[-1]
        if group is None:
            exact = _is_stored_float32(spec) if on_disk else spec.kind == "exact"
            total += spec.size // len(spec.parts) * (4 if exact else 2)
        elif on_disk:
            words = packed_width(width, group.num_bits)
            total += rows * (4 * words + 2 * -(-width // group.group_size)) + 16
        else:
            stored: WeightFormat = "int4" if group.num_bits == 4 else "int8"
            total += weight_nbytes(stored, rows, width, group.group_size)
    return total


def kv_cache_bytes_per_token(config: Ernie4_5_VLMoeConfig, dtype: KVCacheDtype = "bfloat16") -> int:
    """Keys and values of all layers for one token."""
    text = config.text_config
    return 2 * text.num_hidden_layers * text.num_key_value_heads * kv_bytes_per_head(text.head_dim, dtype)


@lru_cache(maxsize=16)  # enumerating the tensors of the 28 B model takes a tenth of a second
def _weights_by_component(
    config: Ernie4_5_VLMoeConfig, weight_format: WeightFormat, group_size: int
) -> Mapping[str, int]:
    weights: dict[str, int] = {}
    for spec in tensor_specs(config).values():
        if config.quantization is not None:
            size = _quantized_bytes(spec, config.quantization, on_disk=False)
        else:
            size = weight_bytes(spec, weight_format, group_size)
        weights[spec.component] = weights.get(spec.component, 0) + size
    return MappingProxyType(weights)


def _is_stored_float32(spec: TensorSpec) -> bool:
    return spec.component in ("text routers", "vision routers", "correction biases")


def _vision_bytes(config: Ernie4_5_VLMoeConfig, num_patches: int) -> int:
    vision = config.vision_config
    merged = num_patches // vision.spatial_merge_size**2
    pixels = 4 * num_patches * vision.patch_dim
    array = 4 * num_patches * vision.hidden_size
    mlp = 4 * min(num_patches, _VISION_MLP_ROWS) * (vision.intermediate_size + vision.hidden_size)
    features = 4 * merged * config.text_config.hidden_size
    return pixels + max(_VISION_ARRAYS * array, 2 * array + mlp) + features


def _decoder_bytes(config: Ernie4_5_VLMoeConfig, tokens: int) -> int:
    text = config.text_config
    inner = max(text.intermediate_size, text.shared_intermediate_size)
    step = 4 * tokens * (_DECODER_ARRAYS * text.hidden_size + 3 * inner)
    return step + 4 * _LOGITS_ARRAYS * text.vocab_size
