"""What a step of the model must do at least, bytes to read and multiplications to make, from its loaded weights.

In: a model, how many experts a step really touched, context lengths. Out: counts. They are honest: every array counts
as it lies in memory (scales and padding too), an expert counts once a step however many tokens want it and not at all
if none does, and rows looked up in the embedding are not its whole matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tusi import kernels
from tusi.kernels.runtime import Unit
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.moe import MoeBlock
from tusi.quant.weights import StackedWeight, Weight


def array_bytes(part: object) -> int:
    """All arrays of a module, as they lie in memory."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, StackedWeight) or _is_weight(part):
        return part.nbytes  # type: ignore[attr-defined, no-any-return]
    return sum(array_bytes(child) for child in _children(part))


def matrix_macs(part: object) -> int:
    """Multiplications that one row takes through all matrices of a module; a stack counts one of its matrices."""
    if isinstance(part, np.ndarray):
        return part.size if part.ndim == 2 else 0
    if isinstance(part, StackedWeight):
        return part.shape[1] * part.shape[2]
    if _is_weight(part):
        n, k = part.shape  # type: ignore[attr-defined]
        return int(n * k)
    return sum(matrix_macs(child) for child in _children(part))


def step_bytes(
    model: Ernie4_5_VLMoeForConditionalGeneration,
    experts_by_layer: Mapping[int, float],
    *,
    context_tokens: float,
    kv_bytes_per_token: int,
) -> float:
    """Bytes that one decoding step reads: layers, touched text experts, head, keys and values of all sequences.

    experts_by_layer: distinct experts that the step's tokens went to. context_tokens: summed over sequences.
    """
    total = float(array_bytes(model.lm_head)) + model.language_model.norm_D.nbytes
    for layer in model.language_model.layers:
        total += array_bytes(layer)
        if isinstance(layer.mlp, MoeBlock):
            text = layer.mlp.text_moe
            stacks = text.gate_up_proj.nbytes + text.down_proj.nbytes
            share = experts_by_layer[layer.layer_idx] / len(text.gate_up_proj)
            total += stacks * (share - 1.0) - array_bytes(layer.mlp.vision_moe)
    return total + context_tokens * kv_bytes_per_token


def token_macs(model: Ernie4_5_VLMoeForConditionalGeneration, *, vision: bool = False) -> int:
    """Multiplications of one token through the decoder's matrices (routers too), without attention and head."""
    total = 0
    for layer in model.language_model.layers:
        if not isinstance(layer.mlp, MoeBlock):
            total += matrix_macs(layer)
            continue
        pool = layer.mlp.vision_moe if vision else layer.mlp.text_moe
        experts = matrix_macs(pool.gate_up_proj) + matrix_macs(pool.down_proj)
        total += matrix_macs(layer.self_attn) + matrix_macs(pool.gate) + experts * pool.gate.top_k
        if layer.mlp.shared_experts is not None:
            total += matrix_macs(layer.mlp.shared_experts)
    return total


def causal_attention_macs(model: Ernie4_5_VLMoeForConditionalGeneration, tokens: int) -> int:
    """Multiplications of a prompt's attention: each token with those up to it, keys and values."""
    text = model.config.text_config
    return text.num_hidden_layers * text.num_attention_heads * text.head_dim * tokens * (tokens + 1)


def prefill_macs(
    model: Ernie4_5_VLMoeForConditionalGeneration, text_tokens: int, vision_tokens: int = 0
) -> dict[Unit, float]:
    """Multiplications of one prompt by the unit they need; the head counts for its last token."""
    matrices = text_tokens * token_macs(model) + vision_tokens * token_macs(model, vision=True)
    head = matrix_macs(model.lm_head)
    attention = causal_attention_macs(model, text_tokens + vision_tokens)
    return _added((decoder_unit(model), matrices + head), ("fp32", attention))


def vision_macs(model: Ernie4_5_VLMoeForConditionalGeneration, patches: int) -> dict[Unit, float]:
    """Multiplications of the vision tower for one picture (one frame)."""
    tower = model.vision_tower
    blocks = patches * sum(matrix_macs(block) for block in tower.blocks)
    embedding = patches * matrix_macs(tower.patch_embed)
    attention = 2 * patches * patches * tower.config.hidden_size * len(tower.blocks)
    unit = unit_of(tower.blocks[0].attn.qkv.weight)
    # Attention rounds to bfloat16 exactly where the products round to int8 (vision_tower.VisionAttention).
    attention_unit: Unit = "bf16" if unit == "int8" else "fp32"
    return _added((unit, blocks), (unit_of(tower.patch_embed), embedding), (attention_unit, attention))


def decoder_unit(model: Ernie4_5_VLMoeForConditionalGeneration) -> Unit:
    """Which unit the decoder's products run on."""
    return unit_of(model.language_model.layers[0].self_attn.qkv_proj)


def unit_of(weight: Weight) -> Unit:
    """int8 where activations are rounded to it; float32 activations are multiplied as float32."""
    return "int8" if getattr(weight, "activations", "float32") == "int8" else "fp32"


def _added(*counts: tuple[Unit, float]) -> dict[Unit, float]:
    total: dict[Unit, float] = {}
    for unit, count in counts:
        total[unit] = total.get(unit, 0.0) + count
    return total


def _is_weight(part: object) -> bool:
    return hasattr(part, "with_arrays") and hasattr(part, "nbytes")


def _children(part: object) -> Sequence[Any]:
    if isinstance(part, tuple):
        return part
    if isinstance(part, kernels.Experts | kernels.PlainExperts | kernels.Pool | kernels.DecoderStack):
        return ()  # the same arrays once more, as one native call wants them
    if is_dataclass(part):
        return [getattr(part, field.name) for field in fields(part)]
    return ()
