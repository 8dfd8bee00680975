"""A GGUF file of the text half of a shape with random weights, for llama.cpp: the same matrices that Tusi runs.

    PYTHONPATH=.../gguf-py python benchmarks/peers/make_gguf.py OUT.gguf SHAPE

Blocks are written as they lie on disk, never quantised from numbers. Q4_0: 32 weights in 18 bytes; the embedding, which
is the head as well, Q6_K: 256 weights in 210 bytes, which is what llama.cpp's own quantiser takes for it. 4-bit codes
are drawn from 1..15, whose mean is 0, so that routers see signals and not a common offset.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import gguf  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from gguf.quants import quant_shape_to_byte_shape  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray

from tusi.models.config import Ernie4_5_VLMoeTextConfig
from tusi.models.shapes import named_shape

Q4, Q6, F32 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.F32
BLOCKS = {Q4: (32, 18), Q6: (256, 210)}
CODE_DEVIATION = {Q4: 4.32, Q6: 18.5}
MOSTLY_Q4_0 = 2


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file, its shape as NumPy counts (the last side runs fastest)."""

    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType


def tensors(text: Ernie4_5_VLMoeTextConfig) -> Iterator[Tensor]:
    """All of them, in the order of the file."""
    width, heads = text.hidden_size, text.num_attention_heads * text.head_dim
    kv, expert = text.num_key_value_heads * text.head_dim, text.moe_intermediate_size[0]
    yield Tensor("token_embd.weight", (text.vocab_size, width), Q6)
    yield Tensor("output_norm.weight", (width,), F32)
    for n, kind in enumerate(text.mlp_layer_types):
        p = f"blk.{n}."
        yield Tensor(p + "attn_norm.weight", (width,), F32)
        yield Tensor(p + "attn_q.weight", (heads, width), Q4)
        yield Tensor(p + "attn_k.weight", (kv, width), Q4)
        yield Tensor(p + "attn_v.weight", (kv, width), Q4)
        yield Tensor(p + "attn_output.weight", (width, heads), Q4)
        yield Tensor(p + "ffn_norm.weight", (width,), F32)
        if kind == "dense":
            yield from mlp(p, "", width, text.intermediate_size)
            continue
        yield Tensor(p + "ffn_gate_inp.weight", (text.moe_num_experts, width), F32)
        yield Tensor(p + "exp_probs_b.bias", (text.moe_num_experts,), F32)
        yield from mlp(p, "_exps", width, expert, text.moe_num_experts)
        yield from mlp(p, "_shexp", width, text.shared_intermediate_size)


def mlp(prefix: str, suffix: str, width: int, inner: int, *stack: int) -> Iterator[Tensor]:
    """Gate, up and down."""
    yield Tensor(f"{prefix}ffn_gate{suffix}.weight", (*stack, inner, width), Q4)
    yield Tensor(f"{prefix}ffn_up{suffix}.weight", (*stack, inner, width), Q4)
    yield Tensor(f"{prefix}ffn_down{suffix}.weight", (*stack, width, inner), Q4)


def random_blocks(rng: np.random.Generator, tensor: Tensor) -> NDArray[np.uint8]:
    """Random codes with scales that give entries a deviation of 1 / sqrt(width)."""
    weights, size = BLOCKS[tensor.type]
    count = math.prod(tensor.shape) // weights
    scale = np.float16(1.0 / math.sqrt(tensor.shape[-1]) / CODE_DEVIATION[tensor.type])
    if tensor.type == Q4:
        blocks = np.empty((count, size), np.uint8)
        blocks[:, :2] = np.frombuffer(scale.tobytes(), np.uint8)
        low, high = rng.integers(1, 16, (2, count, 16), np.uint8)
        blocks[:, 2:] = low | (high << 4)
        return blocks.reshape(-1)
    blocks = np.frombuffer(rng.bytes(count * size), np.uint8).reshape(count, size).copy()
    blocks[:, 192:208] = 32  # sixteen scales of sub-blocks, 8 bits each
    blocks[:, 208:] = np.frombuffer(np.float16(scale / np.float16(32)).tobytes(), np.uint8)
    return blocks.reshape(-1)


def plain(rng: np.random.Generator, tensor: Tensor) -> NDArray[np.float32]:
    """Norms of 1, no bias; routers whose logits have deviation 1."""
    if len(tensor.shape) == 1:
        return np.full(tensor.shape, 0.0 if tensor.name.endswith("bias") else 1.0, np.float32)
    return rng.standard_normal(tensor.shape, np.float32) / np.float32(math.sqrt(tensor.shape[-1]))


def describe(writer: gguf.GGUFWriter, text: Ernie4_5_VLMoeTextConfig) -> None:
    """The file's key-value part."""
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(text.head_dim)
    writer.add_value_length(text.head_dim)
    writer.add_rope_freq_base(text.rope_theta)
    writer.add_rope_dimension_count(text.head_dim)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_expert_count(text.moe_num_experts)
    writer.add_expert_used_count(text.moe_k)
    writer.add_expert_feed_forward_length(text.moe_intermediate_size[0])
    writer.add_expert_shared_feed_forward_length(text.shared_intermediate_size)
    writer.add_expert_shared_count(text.moe_num_shared_experts)
    writer.add_interleave_moe_layer_step(1)
    writer.add_leading_dense_block_count(text.mlp_layer_types.count("dense"))
    writer.add_vocab_size(text.vocab_size)
    writer.add_file_type(MOSTLY_Q4_0)
    writer.add_tokenizer_model("none")


def main() -> None:
    out, shape = sys.argv[1:]
    text = named_shape(shape).text_config
    all_tensors = list(tensors(text))
    writer = gguf.GGUFWriter(out, "ernie4_5-moe")
    writer.add_name(f"random {shape}")
    describe(writer, text)
    for tensor in all_tensors:
        if tensor.type == F32:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), 4 * math.prod(tensor.shape))
            continue
        weights, size = BLOCKS[tensor.type]
        num_bytes = math.prod(tensor.shape) // weights * size
        byte_shape = quant_shape_to_byte_shape(tensor.shape, tensor.type)
        writer.add_tensor_info(tensor.name, byte_shape, np.dtype(np.uint8), num_bytes, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    for tensor in all_tensors:
        writer.write_tensor_data(plain(rng, tensor) if tensor.type == F32 else random_blocks(rng, tensor))
    writer.close()


if __name__ == "__main__":
    main()
