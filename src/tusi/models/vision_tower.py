"""The vision tower: patches of one medium in, one feature a patch out. A pre-norm transformer within each frame.

Knows nothing of merging (that is the resampler), prompts or requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tusi import kernels
from tusi.models.config import Ernie4_5_VLMoeVisionConfig
from tusi.models.parameters import Parameters
from tusi.models.rope import vision_rope
from tusi.quant.weights import F32, I32, Weight

# Widening a big picture's 65,536 patches to the MLP's inner width at once would take gigabytes.
_MLP_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix with its bias."""

    weight: Weight
    bias_N: F32

    @classmethod
    def load(cls, params: Parameters) -> Linear:
        return cls(params.weight("weight"), params.exact("bias"))

    def __call__(self, x_TK: F32) -> F32:
        return self.weight.linear(x_TK, self.bias_N)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight_D: F32
    bias_D: F32
    eps: float

    @classmethod
    def load(cls, params: Parameters, eps: float) -> LayerNorm:
        return cls(params.exact("weight"), params.exact("bias"), eps)

    def __call__(self, x_TD: F32) -> F32:
        return kernels.layer_norm(x_TD, self.weight_D, self.bias_D, self.eps)


@dataclass(frozen=True, slots=True)
class VisionAttention:
    """Full attention within each frame, in bfloat16 where products round activations to int8, which costs more."""

    qkv: Linear
    proj: Linear
    num_heads: int

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeVisionConfig) -> VisionAttention:
        return cls(Linear.load(params.under("qkv.")), Linear.load(params.under("proj.")), config.num_heads)

    def __call__(self, x_TD: F32, cos_TP: F32, sin_TP: F32, cu_seqlens: I32) -> F32:
        head_dim = x_TD.shape[1] // self.num_heads
        out_TNH = kernels.rotary_varlen_attention(
            self.qkv(x_TD),
            cos_TP,
            sin_TP,
            cu_seqlens,
            head_dim**-0.5,
            self.num_heads,
            round_to_bf16=self.qkv.weight.activations == "int8",
        )
        return self.proj(out_TNH.reshape(x_TD.shape))


@dataclass(frozen=True, slots=True)
class VisionMLP:
    fc1: Linear
    fc2: Linear

    @classmethod
    def load(cls, params: Parameters) -> VisionMLP:
        return cls(Linear.load(params.under("fc1.")), Linear.load(params.under("fc2.")))

    def add_to(self, residual_TD: F32, x_TD: F32) -> None:
        """residual += MLP(x), in place."""
        for begin in range(0, len(x_TD), _MLP_ROWS):
            rows = slice(begin, begin + _MLP_ROWS)
            inner_TF = self.fc1(x_TD[rows])
            residual_TD[rows] += self.fc2(kernels.quick_gelu(inner_TF, out=inner_TF))


@dataclass(frozen=True, slots=True)
class VisionBlock:
    norm1: LayerNorm
    norm2: LayerNorm
    attn: VisionAttention
    mlp: VisionMLP

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeVisionConfig) -> VisionBlock:
        return cls(
            norm1=LayerNorm.load(params.under("norm1."), config.rms_norm_eps),
            norm2=LayerNorm.load(params.under("norm2."), config.rms_norm_eps),
            attn=VisionAttention.load(params.under("attn."), config),
            mlp=VisionMLP.load(params.under("mlp.")),
        )

    def __call__(self, x_TD: F32, cos_TP: F32, sin_TP: F32, cu_seqlens: I32) -> F32:
        """The next block's states, in the same array."""
        x_TD += self.attn(self.norm1(x_TD), cos_TP, sin_TP, cu_seqlens)
        self.mlp.add_to(x_TD, self.norm2(x_TD))
        return x_TD


@dataclass(frozen=True, slots=True)
class VisionTransformer:
    patch_embed: Weight
    blocks: tuple[VisionBlock, ...]
    ln: LayerNorm
    config: Ernie4_5_VLMoeVisionConfig

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeVisionConfig) -> VisionTransformer:
        return cls(
            patch_embed=params.weight("patch_embed.proj.weight"),
            blocks=tuple(VisionBlock.load(params.under(f"blocks.{n}."), config) for n in range(config.depth)),
            ln=LayerNorm.load(params.under("ln."), config.rms_norm_eps),
            config=config,
        )

    def __call__(self, pixel_values_PC: F32, grid_thw: tuple[int, int, int]) -> F32:
        """[P, patch_dim] pixels of one medium -> [P, hidden_size]; patches in cell order, frame by frame."""
        t, h, w = grid_thw
        config = self.config
        cos_TP, sin_TP = vision_rope(grid_thw, config.spatial_merge_size, config.head_dim, config.rope_theta)
        # Frames of a video do not see each other here.
        cu_seqlens = np.arange(t + 1, dtype=np.int32) * (h * w)
        hidden_PD = self.patch_embed.linear(pixel_values_PC)
        for block in self.blocks:
            hidden_PD = block(hidden_PD, cos_TP, sin_TP, cu_seqlens)
        return self.ln(hidden_PD)
