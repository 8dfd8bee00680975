from __future__ import annotations

from dataclasses import replace

import pytest

from tusi.bench.work import array_bytes, causal_attention_macs, prefill_macs, step_bytes, token_macs, vision_macs
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.moe import MoeBlock
from tusi.models.random_weights import random_model
from tusi.models.shapes import named_shape


@pytest.fixture(scope="module")
def model() -> Ernie4_5_VLMoeForConditionalGeneration:
    return random_model(named_shape("tiny"), "fp32")


# The tiny shape: D 64, 4 heads and 2 KV heads of 16, dense inner 96, experts of 48 (text) and 16 (vision), 8 a pool,
# 3 a token, shared 96; vision width 32, inner 64, 2 blocks.
ATTENTION = 64 * (64 + 32 + 32) + 64 * 64
DENSE = 3 * 64 * 96
SHARED = 3 * 64 * 96
ROUTER = 8 * 64


def test_multiplications_of_a_token_are_those_of_the_shape(model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    assert token_macs(model) == 2 * ATTENTION + DENSE + SHARED + ROUTER + 3 * 3 * 64 * 48
    assert token_macs(model, vision=True) == 2 * ATTENTION + DENSE + SHARED + ROUTER + 3 * 3 * 64 * 16


def test_multiplications_of_a_prompt(model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    # Token i sees i + 1 tokens: 1 + 2 + 3 of them, keys and values, 4 heads of 16, 2 layers.
    assert causal_attention_macs(model, 3) == 6 * 2 * 4 * 16 * 2
    head = model.config.text_config.vocab_size * 64
    expected = 2 * token_macs(model) + token_macs(model, vision=True) + head + causal_attention_macs(model, 3)
    assert prefill_macs(model, 2, 1) == {"fp32": expected}


def test_multiplications_of_the_vision_tower(model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    block = 32 * 96 + 32 * 32 + 2 * 32 * 64
    assert vision_macs(model, 10) == {"fp32": 10 * (2 * block + 32 * 588) + 2 * 10 * 10 * 32 * 2}


def test_a_step_reads_touched_experts_the_head_and_the_context(model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    none = step_bytes(model, {1: 0}, context_tokens=0, kv_bytes_per_token=0)
    norms = 4 * (5 * 64)
    bias = 4 * 8
    plain = 4 * (2 * ATTENTION + DENSE + SHARED + ROUTER + model.config.text_config.vocab_size * 64)
    assert none == plain + norms + bias
    expert = 4 * 3 * 64 * 48
    some = step_bytes(model, {1: 5}, context_tokens=10, kv_bytes_per_token=7)
    assert some - none == pytest.approx(5 * expert + 70)


def test_all_arrays_of_a_module_count() -> None:
    model = random_model(named_shape("tiny"), "int8")
    block = model.language_model.layers[1].mlp
    assert isinstance(block, MoeBlock)
    pool = replace(block.text_moe)
    expected = pool.gate_up_proj.nbytes + pool.down_proj.nbytes + pool.gate.weight_ED.nbytes + 4 * 8
    assert array_bytes(pool) == expected
