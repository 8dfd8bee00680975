"""All layers in one native call give the bits that the layers give one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fixtures.prompts import build_prompt
from tusi.core.types import WeightFormat
from tusi.models.attention_metadata import empty_kv_cache
from tusi.models.decoder import native_stack
from tusi.models.full_sequence import one_request_metadata
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration as Model
from tusi.models.moe import RoutingRecorder
from tusi.models.random_checkpoint import TINY_TEXT, tiny_config
from tusi.models.random_weights import random_model
from tusi.quant.weights import with_activations

LAYERS = replace(TINY_TEXT, num_hidden_layers=3, mlp_layer_types=("dense", "sparse", "sparse"))


def model(weight_format: WeightFormat, **text: Any) -> Model:
    return random_model(tiny_config(text=replace(LAYERS, **text)), weight_format, group_size=16)


def run(model: Model, kv_dtype: Any, *, stacked: bool) -> tuple[np.ndarray, RoutingRecorder, list[Any]]:
    """Hidden states, routing and caches of a prompt with a picture."""
    prompt = build_prompt(model.config, (5, ("image", (1, 4, 4)), 6))
    tokens, text = len(prompt.input_ids), model.config.text_config
    shape = (-(-tokens // 16), 16, text.num_key_value_heads, text.head_dim)
    caches = [empty_kv_cache(*shape, kv_dtype) for _ in range(text.num_hidden_layers)]
    routing = RoutingRecorder()
    language_model = model.language_model if stacked else replace(model.language_model, stack=None)
    hidden_TD = language_model(
        model.embed(prompt.input_ids),
        prompt.position_ids,
        np.asarray(prompt.moe_mm_token_type_ids) != 0,
        one_request_metadata(tokens),
        caches,
        routing,
    )
    return hidden_TD, routing, caches


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("weight_format", ["fp32", "bf16", "int8", "int4"])
def test_the_stack_gives_the_bits_of_its_layers(weight_format: WeightFormat, kv_dtype: str) -> None:
    subject = model(weight_format)
    assert subject.language_model.stack is not None
    hidden_TD, routing, caches = run(subject, kv_dtype, stacked=True)
    expected_TD, expected_routing, expected_caches = run(subject, kv_dtype, stacked=False)
    np.testing.assert_array_equal(hidden_TD, expected_TD)
    assert set(routing.calls) == set(expected_routing.calls) == {1, 2}
    for layer in (1, 2):
        np.testing.assert_array_equal(routing.topk_ids(layer), expected_routing.topk_ids(layer))
        np.testing.assert_array_equal(routing.topk_weights(layer), expected_routing.topk_weights(layer))
    for cache, expected in zip(caches, expected_caches, strict=True):
        for array, twin in zip(cache.arrays, expected.arrays, strict=True):
            np.testing.assert_array_equal(array, twin)


def test_layers_whose_gate_ends_inside_a_block_of_rows_run_one_by_one() -> None:
    assert model("int4", moe_intermediate_size=(24, 16)).language_model.stack is None


def test_layers_that_round_their_input_differently_run_one_by_one() -> None:
    subject = model("int4")
    first, *others = subject.language_model.layers
    exact = replace(first.self_attn, qkv_proj=with_activations(first.self_attn.qkv_proj, "float32"))  # type: ignore[arg-type]
    assert native_stack([replace(first, self_attn=exact), *others], subject.config.text_config) is None


def test_a_run_that_nobody_watches_gives_the_same() -> None:
    subject = model("int4")
    watched, _, _ = run(subject, "float32", stacked=True)
    prompt = build_prompt(subject.config, (5, ("image", (1, 4, 4)), 6))
    text = subject.config.text_config
    caches = [empty_kv_cache(2, 16, text.num_key_value_heads, text.head_dim, "float32") for _ in range(3)]
    mask_T = np.asarray(prompt.moe_mm_token_type_ids) != 0
    attn = one_request_metadata(len(mask_T))
    embeds_TD = subject.embed(prompt.input_ids)
    before = embeds_TD.copy()
    hidden_TD = subject.language_model(embeds_TD, prompt.position_ids, mask_T, attn, caches)
    np.testing.assert_array_equal(hidden_TD, watched)
    np.testing.assert_array_equal(embeds_TD, before)
