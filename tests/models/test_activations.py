"""What rounding activations to eight bits costs, beside what the weights' own format costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.prompts import build_prompt
from tusi.core.types import WeightFormat
from tusi.models.full_sequence import full_sequence_logits
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration as Model
from tusi.models.moe import MoeBlock
from tusi.models.random_checkpoint import TINY_TEXT, tiny_config, write_random_checkpoint
from tusi.quant.weights import make_weight


# A layer of the 28 B shape, narrower: normal weights, activations with a few large channels as trained models have.
# Relative to the deviation of the output. A code's rounding error is uniform over a step, so of variance step^2 / 12;
# the largest of 32 normal values lies near 2.07 deviations. Weights: 2.07 / 7 / sqrt(12) = 8.5 %; int8: 0.47 %.
@pytest.mark.parametrize(("format_", "weights_bound"), [("int4", 0.10), ("int8", 0.0060)])
def test_output_errors_stay_within_the_bounds_of_the_format(format_: WeightFormat, weights_bound: float) -> None:
    rng = np.random.default_rng(0)
    for n, k in ((768, 640), (640, 384), (512, 640)):
        weight_NK = (rng.standard_normal((n, k)) * 0.02).astype(np.float32)
        x_TK = rng.standard_normal((32, k)).astype(np.float32)
        x_TK[:, rng.integers(0, k, 6)] *= 20
        exact = x_TK @ weight_NK.T

        w16 = make_weight(weight_NK, format_, activations="float32").linear(x_TK)
        w8 = make_weight(weight_NK, format_).linear(x_TK)
        assert 0.2 * weights_bound < _deviation(w16 - exact) / exact.std() <= weights_bound
        # The activations' own error: measured 0.5 to 1.3 % with such channels, whatever the weights' format.
        assert 0.002 < _deviation(w8 - w16) / exact.std() <= 0.016


def _deviation(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("format_", ["int8", "int4"])
def test_native_experts_are_those_of_single_steps(tiny_model: Path, format_: WeightFormat) -> None:
    for activations, tolerance in (("float32", 2e-5), ("int8", 0.05)):
        model = Model.from_pretrained(tiny_model, format_, activations=activations)  # type: ignore[arg-type]
        block = model.language_model.layers[1].mlp
        assert isinstance(block, MoeBlock)
        assert block.is_native
        steps = replace(block, is_native=False)
        hidden_TD = np.random.default_rng(1).standard_normal((13, 64)).astype(np.float32)
        norm_D = model.language_model.layers[1].post_attention_layernorm_D
        for mask_T in (np.zeros(13, bool), np.ones(13, bool), np.arange(13) % 3 == 0):
            for got, expected in zip(block(hidden_TD, mask_T), steps(hidden_TD, mask_T), strict=True):
                np.testing.assert_allclose(got, expected, atol=tolerance)
            before = hidden_TD.copy()
            fused = block.residual(before.copy(), norm_D, 1e-5, mask_T)
            apart = steps.residual(before.copy(), norm_D, 1e-5, mask_T)
            for got, expected in zip(fused, apart, strict=True):
                np.testing.assert_allclose(got, expected, atol=tolerance)
            assert np.abs(fused[0] - before).max() > 0.01


@pytest.mark.parametrize("format_", ["bf16", "fp32"])
def test_plain_experts_in_one_call_are_those_of_single_steps_bit_for_bit(
    tiny_model: Path, format_: WeightFormat
) -> None:
    model = Model.from_pretrained(tiny_model, format_)
    for layer in model.language_model.layers:
        mlp, norm_D = layer.mlp, layer.post_attention_layernorm_D
        hidden_TD = np.random.default_rng(1).standard_normal((13, 64)).astype(np.float32)
        if not isinstance(mlp, MoeBlock):
            assert mlp.experts is not None
            apart_TD = replace(mlp, experts=None).residual(hidden_TD.copy(), norm_D, 1e-5)
            np.testing.assert_array_equal(mlp.residual(hidden_TD.copy(), norm_D, 1e-5), apart_TD)
            continue
        assert mlp.is_native
        shared = mlp.shared_experts
        steps = replace(mlp, is_native=False, shared_experts=None if shared is None else replace(shared, experts=None))
        for mask_T in (np.zeros(13, bool), np.ones(13, bool), np.arange(13) % 3 == 0):
            fused = mlp.residual(hidden_TD.copy(), norm_D, 1e-5, mask_T)
            apart = steps.residual(hidden_TD.copy(), norm_D, 1e-5, mask_T)
            for got, expected in zip(fused, apart, strict=True):
                np.testing.assert_array_equal(got, expected)


# Relative to the deviation of the logits; every expert is taken, so that rounding changes no route.
def test_rounding_activations_costs_little_beside_the_weights(tmp_path: Path) -> None:
    config = replace(tiny_config(text=replace(TINY_TEXT, moe_k=8)), dtype="float32")
    folder = write_random_checkpoint(tmp_path / "m", config=config)
    prompt = build_prompt(config, (20, ("image", (1, 6, 6)), 20))
    exact = full_sequence_logits(Model.from_pretrained(folder, "fp32"), prompt)
    for format_, bound in (("int4", 0.40), ("int8", 0.04)):
        logits = {
            a: full_sequence_logits(Model.from_pretrained(folder, format_, activations=a), prompt)  # type: ignore[arg-type]
            for a in ("float32", "int8")
        }
        assert np.sqrt(np.mean((logits["int8"] - exact) ** 2)) / exact.std() < bound
        assert np.sqrt(np.mean((logits["int8"] - logits["float32"]) ** 2)) / exact.std() < 0.03
