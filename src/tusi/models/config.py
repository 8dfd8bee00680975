"""What an ERNIE-4.5-VL model is made of: frozen values under transformers' names, and what follows from them.

Owns the three dataclasses and the rules a sound configuration keeps. `config_io` reads and writes config.json in both
published layouts. Knows nothing of files, tensors or requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tusi.models.quantization import Quantization

MlpLayerType = Literal["dense", "sparse"]

# No model of this family comes near these; a config beyond them is damaged or hostile, and enumerating its tensors
# would take all memory.
MAX_LAYERS = 1024
_MAX_EXPERTS = 4096
_MAX_WIDTH = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Ernie4_5_VLMoeTextConfig:
    """The decoder. moe_intermediate_size: inner widths of text and vision experts; mrope_section: pairs for h, w, t."""

    vocab_size: int = 103424
    hidden_size: int = 2560
    intermediate_size: int = 12288
    num_hidden_layers: int = 28
    num_attention_heads: int = 20
    num_key_value_heads: int = 4
    head_dim: int = 128
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    mrope_section: tuple[int, int, int] = (22, 22, 20)
    moe_num_experts: int = 64
    moe_intermediate_size: tuple[int, int] = (1536, 512)
    moe_k: int = 6
    moe_num_shared_experts: int = 2
    moe_norm_min: float = 1e-12
    mlp_layer_types: tuple[MlpLayerType, ...] = ("dense", *("sparse",) * 27)

    @property
    def shared_intermediate_size(self) -> int:
        """Inner width of the one MLP that all shared experts are fused into; 0 if there are none."""
        return self.moe_num_shared_experts * self.moe_intermediate_size[0]


@dataclass(frozen=True, kw_only=True)
class Ernie4_5_VLMoeVisionConfig:
    """The vision tower and the merging after it. rms_norm_eps is transformers' name for what is a LayerNorm's eps."""

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_merge_size: int = 2
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Values of one flattened patch."""
        return self.in_channels * self.patch_size**2

    @property
    def spatial_dim(self) -> int:
        """Width after `spatial_merge_size`^2 patches are laid side by side."""
        return self.hidden_size * self.spatial_merge_size**2

    @property
    def temporal_dim(self) -> int:
        return self.spatial_dim * self.temporal_merge_size


@dataclass(frozen=True, kw_only=True)
class Ernie4_5_VLMoeConfig:
    """The whole model. eos_token_id lists every id that ends generation; quantization says how weights are stored."""

    text_config: Ernie4_5_VLMoeTextConfig = field(default_factory=Ernie4_5_VLMoeTextConfig)
    vision_config: Ernie4_5_VLMoeVisionConfig = field(default_factory=Ernie4_5_VLMoeVisionConfig)
    image_token_id: int = 100295
    image_start_token_id: int = 101304
    image_end_token_id: int = 101305
    video_token_id: int = 103367
    video_start_token_id: int = 101306
    video_end_token_id: int = 101307
    bos_token_id: int = 1
    eos_token_id: tuple[int, ...] = (2,)
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    dtype: str = "bfloat16"
    quantization: Quantization | None = None

    def num_media_tokens(self, grid_thw: tuple[int, int, int]) -> int:
        """Placeholder tokens of a picture (t = 1) or video with this patch grid."""
        t, h, w = grid_thw
        merged = (h // self.vision_config.spatial_merge_size) * (w // self.vision_config.spatial_merge_size)
        return max(1, t // self.vision_config.temporal_merge_size) * merged


def find_problems(config: Ernie4_5_VLMoeConfig) -> list[str]:
    """Every reason why this configuration cannot be a model; empty if it can."""
    return [
        *_text_problems(config.text_config),
        *_vision_problems(config.vision_config),
        *_token_problems(config),
    ]


def _text_problems(text: Ernie4_5_VLMoeTextConfig) -> list[str]:
    problems = _range_problems(
        "",
        {
            "vocab_size": (text.vocab_size, 1 << 24),
            "hidden_size": (text.hidden_size, _MAX_WIDTH),
            "intermediate_size": (text.intermediate_size, _MAX_WIDTH),
            "num_hidden_layers": (text.num_hidden_layers, MAX_LAYERS),
            "num_attention_heads": (text.num_attention_heads, _MAX_WIDTH),
            "num_key_value_heads": (text.num_key_value_heads, _MAX_WIDTH),
            "head_dim": (text.head_dim, _MAX_WIDTH),
            "max_position_embeddings": (text.max_position_embeddings, 1 << 31),
            "moe_num_experts": (text.moe_num_experts, _MAX_EXPERTS),
            "moe_intermediate_size[0]": (text.moe_intermediate_size[0], _MAX_WIDTH),
            "moe_intermediate_size[1]": (text.moe_intermediate_size[1], _MAX_WIDTH),
            "moe_k": (text.moe_k, _MAX_EXPERTS),
        },
    )
    if problems:
        return problems
    h, w, t = text.mrope_section
    checks = (
        (0 <= text.moe_num_shared_experts <= 64, f"moe_num_shared_experts is {text.moe_num_shared_experts}, not 0..64"),
        (text.rms_norm_eps > 0, f"rms_norm_eps is {text.rms_norm_eps}; it must be above 0"),
        (text.moe_norm_min > 0, f"moe_norm_min is {text.moe_norm_min}; it must be above 0"),
        (text.rope_theta > 0, f"rope_theta is {text.rope_theta}; it must be above 0"),
        (
            text.num_attention_heads % text.num_key_value_heads == 0,
            f"num_attention_heads ({text.num_attention_heads}) is not a multiple of num_key_value_heads "
            f"({text.num_key_value_heads})",
        ),
        (text.head_dim % 2 == 0, f"head_dim is {text.head_dim}; rotary pairs need an even number"),
        (
            h == w and min(h, w, t) >= 0 and 2 * (h + w + t) == text.head_dim,
            f"mrope_section [h, w, t] is {[h, w, t]}; h and w must be equal and all three sum to head_dim / 2 "
            f"= {text.head_dim // 2}",
        ),
        (
            text.moe_k <= text.moe_num_experts,
            f"moe_k is {text.moe_k}, more than moe_num_experts ({text.moe_num_experts})",
        ),
        (
            len(text.mlp_layer_types) == text.num_hidden_layers
            and all(kind in ("dense", "sparse") for kind in text.mlp_layer_types),
            f"mlp_layer_types has {len(text.mlp_layer_types)} entries; it takes one 'dense' or 'sparse' for each of "
            f"the {text.num_hidden_layers} layers",
        ),
    )
    return [problem for sound, problem in checks if not sound]


def _vision_problems(vision: Ernie4_5_VLMoeVisionConfig) -> list[str]:
    problems = _range_problems(
        "vision_config.",
        {
            "depth": (vision.depth, MAX_LAYERS),
            "hidden_size": (vision.hidden_size, _MAX_WIDTH),
            "intermediate_size": (vision.intermediate_size, _MAX_WIDTH),
            "num_heads": (vision.num_heads, _MAX_WIDTH),
            "in_channels": (vision.in_channels, 64),
            "patch_size": (vision.patch_size, 1024),
            "spatial_merge_size": (vision.spatial_merge_size, 64),
        },
    )
    if problems:
        return problems
    checks = (
        (vision.rms_norm_eps > 0, f"vision_config.rms_norm_eps is {vision.rms_norm_eps}; it must be above 0"),
        (vision.rope_theta > 0, f"vision_config.rope_theta is {vision.rope_theta}; it must be above 0"),
        (
            vision.hidden_size % (4 * vision.num_heads) == 0,
            f"vision_config.hidden_size ({vision.hidden_size}) must be a multiple of 4 x num_heads "
            f"({vision.num_heads}), for 2-D rotary positions",
        ),
        (
            vision.temporal_merge_size == 2,
            f"temporal merge size is {vision.temporal_merge_size}; the resampler is defined for pairs of frames only",
        ),
    )
    return [problem for sound, problem in checks if not sound]


def _token_problems(config: Ernie4_5_VLMoeConfig) -> list[str]:
    ids = {
        "image_token_id": config.image_token_id,
        "image_start_token_id": config.image_start_token_id,
        "image_end_token_id": config.image_end_token_id,
        "video_token_id": config.video_token_id,
        "video_start_token_id": config.video_start_token_id,
        "video_end_token_id": config.video_end_token_id,
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.pad_token_id,
    } | {f"eos_token_id[{i}]": token_id for i, token_id in enumerate(config.eos_token_id)}
    vocab_size = config.text_config.vocab_size
    problems = [
        f"{name} is {token_id}, outside the vocabulary 0..{vocab_size - 1}"
        for name, token_id in ids.items()
        if not 0 <= token_id < vocab_size
    ]
    if not config.eos_token_id:
        problems.append("eos_token_id is empty; generation would never end")
    return problems


def _range_problems(prefix: str, values: dict[str, tuple[int, int]]) -> list[str]:
    return [
        f"{prefix}{name} is {value}, not within 1..{high}"
        for name, (value, high) in values.items()
        if not 1 <= value <= high
    ]
