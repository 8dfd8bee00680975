"""Shapes of models by short names, for benchmarks that need no weights: the published one, and a small one.

The small one is the shape on which other engines were measured too (docs/benchmarks.md): it fits every engine and
every machine, and a token of it is cheap enough that what an engine does besides arithmetic shows.
"""

from __future__ import annotations

from dataclasses import replace

from tusi.core.errors import ConfigError
from tusi.models.config import (
    Ernie4_5_VLMoeConfig,
    Ernie4_5_VLMoeTextConfig,
    Ernie4_5_VLMoeVisionConfig,
    MlpLayerType,
)
from tusi.models.known import KNOWN_MODELS
from tusi.models.random_checkpoint import tiny_config, with_layers

_LAYERS: tuple[MlpLayerType, ...] = ("sparse",) * 8

SMALL_TEXT = Ernie4_5_VLMoeTextConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=len(_LAYERS),
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=8192,
    mrope_section=(12, 12, 8),
    moe_num_experts=16,
    moe_intermediate_size=(256, 128),
    moe_k=4,
    moe_num_shared_experts=1,
    mlp_layer_types=_LAYERS,
)
SMALL_VISION = Ernie4_5_VLMoeVisionConfig(depth=4, hidden_size=256, intermediate_size=1024, num_heads=4)

SHAPES = ("28b", "28b-tied", "28b-half", "small", "tiny")


def named_shape(name: str) -> Ernie4_5_VLMoeConfig:
    """The configuration of one of SHAPES. Raises ConfigError.

    28b has a head of its own, as -Thinking does; 28b-tied shares it with the embedding, as -PT does; 28b-half has 14 of
    its 28 decoder layers and is otherwise whole, for machines without room for all of it.
    """
    if name == "28b":
        return KNOWN_MODELS["baidu/ERNIE-4.5-VL-28B-A3B-Thinking"]
    if name == "28b-tied":
        return KNOWN_MODELS["baidu/ERNIE-4.5-VL-28B-A3B-PT"]
    if name == "28b-half":
        whole = named_shape("28b")
        return replace(whole, text_config=with_layers(whole.text_config, whole.text_config.num_hidden_layers // 2))
    if name == "small":
        return tiny_config(text=SMALL_TEXT, vision=SMALL_VISION)
    if name == "tiny":
        return tiny_config()
    raise ConfigError(f"shape {name!r} is unknown; expected one of {', '.join(SHAPES)}. Choose one of these.")
