"""Whether the output error of quantised layers is what their format promises: on random layers of the real shape.

    python benchmarks/layer_error.py [--shape 28b] [--tokens 96] [--seed 0] [--json]

For attention, the dense feed-forward part and the mixture of experts (text and vision tokens apart) of one layer each,
the outputs of int4 and int8 weights, with float32 and with int8 activations, are compared with those of bf16 weights.
Exits with 1 if an error is beyond its bound. Inputs have a few channels 20 times as large as the others, as trained
models have. The 28 B shape takes two minutes and less than 4 GB.

The bound uses nothing that was measured, but what rounding is:

- A code is off by half a step at most; a step is the largest value of its group by 7 or 127 (and 2^-8 more, because
  scales are bfloat16). The same holds for an activation, with its group's largest value by 127.
- Rounding errors have no preferred sign and do not know of each other, so their squares add up. A value that lies
  within half a step has a variance of at most step^2 / 4 (the bound), and of step^2 / 12 if all places within a step
  are alike (the expectation).
- These variances are carried to the output by the layer's own numbers, to first order: through a product by the squares
  of the other factor, through SiLU and softmax by their derivatives at the exact values.

A layer passes if the root mean square of its output's error is below the bound, if no single element is farther off
than 6.5 of its own bounds (chance 2 exp(-6.5^2 / 2) = 1e-9 each, by Hoeffding), and if the error is above half of the
expectation: much less would mean that nothing was quantised.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core import machine
from tusi.core.types import Activations, WeightFormat
from tusi.models.attention import TextAttention
from tusi.models.config import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeTextConfig
from tusi.models.full_sequence import new_kv_caches, one_request_metadata
from tusi.models.key_table import TensorSpec, tensor_specs
from tusi.models.moe import MLP, MoeBlock
from tusi.models.parameters import Parameters, to_float32
from tusi.models.random_checkpoint import with_layers
from tusi.models.rope import text_rope
from tusi.models.shapes import SHAPES, named_shape

F32 = NDArray[np.float32]
GROUP = 32
SCALE_ROUNDING = 1 + 2.0**-8
WORST, EXPECTED = 1 / 4, 1 / 12
"""Variance of an error within half a step: at most, and if it is evenly distributed. In steps, squared."""
LARGEST = 6.5
DENSE = "model.language_model.layers.0."
SPARSE = "model.language_model.layers.1."
FORMATS: tuple[tuple[WeightFormat, int], ...] = (("int4", 7), ("int8", 127))
ACTIVATIONS: tuple[Activations, ...] = ("float32", "int8")


class Drawn:
    """A checkpoint whose tensors are drawn when they are asked for: the same each time, and none is kept."""

    def __init__(self, config: Ernie4_5_VLMoeConfig, seed: int) -> None:
        self.config = config
        self.specs = tensor_specs(config)
        self._seed = seed

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __getitem__(self, name: str) -> Any:
        return self._stored(self.specs[name], name, self.specs[name].shape)

    def expert(self, name: str, e: int) -> Any:
        return self._stored(self.specs[name], f"{name}/{e}", self.specs[name].shape[1:])

    def stored_bytes(self, name: str) -> int:
        return 2 * self.specs[name].size

    def packed(self, name: str, expert: int | None = None) -> None:
        return None

    def _stored(self, spec: TensorSpec, name: str, shape: tuple[int, ...]) -> Any:
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        values = np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_normal(shape, np.float32)
        if spec.name.endswith("e_score_correction_bias"):
            return values * np.float32(0.1)
        if spec.kind == "exact":
            norm = len(shape) == 1
            return np.float32(1) + values * np.float32(0.1) if norm else values / np.float32(shape[-1] ** 0.5)
        return kernels.f32_to_bf16(values / np.float32(shape[-1] ** 0.5))


@dataclass(frozen=True)
class Noisy:
    """Exact values, and the variance of what another way of computing them is off by."""

    value: F32
    variance: F32


@dataclass(frozen=True)
class Rounding:
    """Which steps errors lie in. share: of a squared step, the variance."""

    q_max: int
    activations: Activations
    share: float

    def weight_variance(self, weight_NK: F32) -> F32:
        """[N, groups]"""
        return _step(weight_NK, self.q_max, SCALE_ROUNDING) ** 2 * np.float32(self.share)

    def rounded(self, x: Noisy) -> Noisy:
        """What a product takes as its input."""
        if self.activations == "float32":
            return x
        step_TG = _step(x.value, 127, 1.0)
        return Noisy(x.value, x.variance + np.repeat(step_TG**2 * np.float32(self.share), GROUP, axis=1))

    def product(self, x: Noisy, weight_NK: F32) -> Noisy:
        """x @ weight.T, both rounded."""
        x = self.rounded(x)
        squares_TG = _by_group(x.value**2 + x.variance).sum(axis=2)
        variance_TN = squares_TG @ self.weight_variance(weight_NK).T
        if x.variance.any():
            variance_TN += x.variance @ (weight_NK**2).T
        return Noisy(x.value @ weight_NK.T, variance_TN)

    def mlp(self, x: Noisy, gate_up_MK: F32, down_NF: F32) -> Noisy:
        """down(silu(gate(x)) * up(x))"""
        both = self.product(x, gate_up_MK)
        (gate, up), (gate_var, up_var) = np.split(both.value, 2, axis=1), np.split(both.variance, 2, axis=1)
        sigmoid = 1 / (1 + np.exp(-gate))
        silu, slope = gate * sigmoid, sigmoid * (1 + gate * (1 - sigmoid))
        inner_var = (slope * up) ** 2 * gate_var + silu**2 * up_var + slope**2 * gate_var * up_var
        return self.product(Noisy(silu * up, inner_var), down_NF)


def _by_group(values: F32) -> F32:
    return values.reshape(len(values), -1, GROUP)


def _step(values: F32, q_max: int, more: float) -> F32:
    largest: F32 = np.abs(_by_group(values)).max(axis=2)
    return largest * np.float32(more / q_max)


def exact(values: F32) -> Noisy:
    return Noisy(values, np.zeros_like(values))


@dataclass(frozen=True)
class Case:
    """One layer's input, and everything about its tokens."""

    config: Ernie4_5_VLMoeTextConfig
    source: Drawn
    hidden_TD: F32
    vision_T: NDArray[np.bool_]

    @property
    def rope(self) -> tuple[F32, F32]:
        return text_rope(np.tile(np.arange(len(self.hidden_TD), dtype=np.int32), (3, 1)), self.config)

    def normed(self, layer: str, norm: str) -> F32:
        return kernels.rms_norm(self.hidden_TD, self.matrix(f"{layer}{norm}.weight"), self.config.rms_norm_eps)

    def matrix(self, name: str) -> F32:
        return to_float32(self.source[name])


def draw_case(config: Ernie4_5_VLMoeConfig, tokens: int, seed: int) -> Case:
    text = with_layers(config.text_config, 2)
    config = replace(config, text_config=text)
    rng = np.random.default_rng(seed)
    hidden_TD = rng.standard_normal((tokens, text.hidden_size), np.float32)
    hidden_TD[:, rng.choice(text.hidden_size, 6, replace=False)] *= 20
    return Case(text, Drawn(config, seed), hidden_TD, np.arange(tokens) % 3 == 0)


# What the model computes


def run_layers(case: Case, weight_format: WeightFormat, activations: Activations) -> dict[str, F32]:
    """What each part adds to the hidden states, by the model's own code."""
    params = Parameters(case.source, weight_format, group_size=GROUP, activations=activations)
    outputs = {
        "attention": _attention(case, params.under(SPARSE)),
        "dense": _dense(case, params.under(DENSE)),
        **_experts(case, params.under(SPARSE)),
    }
    gc.collect()
    return outputs


def _attention(case: Case, params: Parameters) -> F32:
    attention = TextAttention.load(params.under("self_attn."), case.config)
    tokens = len(case.hidden_TD)
    out_TD = attention.residual(
        case.hidden_TD.copy(),
        params.exact("input_layernorm.weight"),
        case.config.rms_norm_eps,
        *case.rope,
        one_request_metadata(tokens),
        new_kv_caches(case.config, tokens)[0],
    )
    return out_TD - case.hidden_TD


def _dense(case: Case, params: Parameters) -> F32:
    norm_D = params.exact("post_attention_layernorm.weight")
    mlp = MLP.load(params.under("mlp."))
    return mlp.residual(case.hidden_TD.copy(), norm_D, case.config.rms_norm_eps) - case.hidden_TD


def _experts(case: Case, params: Parameters) -> dict[str, F32]:
    norm_D = params.exact("post_attention_layernorm.weight")
    block = MoeBlock.load(params.under("mlp."), case.config)
    out_TD, weights_TK, ids_TK = block.residual(case.hidden_TD.copy(), norm_D, case.config.rms_norm_eps, case.vision_T)
    return {"experts": out_TD - case.hidden_TD, "routes": ids_TK, "shares": weights_TK}


# What may be off


def expected_errors(case: Case, exact_outputs: dict[str, F32], rounding: Rounding) -> dict[str, F32]:
    """The variance of every element of each part's output."""
    return {
        "attention": _attention_variance(case, rounding),
        "dense": _dense_variance(case, rounding),
        "experts": _experts_variance(case, exact_outputs, rounding),
    }


def _dense_variance(case: Case, rounding: Rounding) -> F32:
    names = (f"{DENSE}mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
    gate, up, down = map(case.matrix, names)
    x = exact(case.normed(DENSE, "post_attention_layernorm"))
    return rounding.mlp(x, np.concatenate([gate, up]), down).variance


def _experts_variance(case: Case, outputs: dict[str, F32], rounding: Rounding) -> F32:
    x_TD = case.normed(SPARSE, "post_attention_layernorm")
    shared = f"{SPARSE}mlp.shared_experts."
    gate, up, down = (case.matrix(f"{shared}{name}_proj.weight") for name in ("gate", "up", "down"))
    variance_TD = rounding.mlp(exact(x_TD), np.concatenate([gate, up]), down).variance
    for pool, mask_T in (("text_moe", ~case.vision_T), ("vision_moe", case.vision_T)):
        name = f"{SPARSE}mlp.{pool}.experts."
        for e in range(case.config.moe_num_experts):
            tokens, slots = np.nonzero((outputs["routes"] == e) & mask_T[:, None])
            if tokens.size:
                gate_up, down = (to_float32(case.source.expert(name + p, e)) for p in ("gate_up_proj", "down_proj"))
                part = rounding.mlp(exact(x_TD[tokens]), gate_up, down)
                variance_TD[tokens] += outputs["shares"][tokens, slots, None] ** 2 * part.variance
    return variance_TD


def _attention_variance(case: Case, rounding: Rounding) -> F32:
    config, name = case.config, f"{SPARSE}self_attn."
    q_name, k_name, v_name, o_name = (f"{name}{letter}_proj.weight" for letter in "qkvo")
    x = exact(case.normed(SPARSE, "input_layernorm"))
    tables = case.rope
    q = _turned(rounding.product(x, case.matrix(q_name)), config.num_attention_heads, tables)
    k = _turned(rounding.product(x, case.matrix(k_name)), config.num_key_value_heads, tables)
    v_weight = case.matrix(v_name).reshape(config.num_key_value_heads, config.head_dim, -1)
    heads = []
    for head in range(config.num_attention_heads):
        group = head * config.num_key_value_heads // config.num_attention_heads
        pick = (Noisy(one.value[:, at], one.variance[:, at]) for one, at in ((q, head), (k, group)))
        heads.append(_head(*pick, x, v_weight[group], rounding))
    joined = Noisy(*(np.concatenate([getattr(head, part) for head in heads], axis=1) for part in ("value", "variance")))
    return rounding.product(joined, case.matrix(o_name)).variance


def _turned(x: Noisy, heads: int, tables: tuple[F32, F32]) -> Noisy:
    """[T, heads, H] after the rotation of neighbouring pairs."""
    cos, sin = (table[:, None, :] for table in tables)
    pairs = [part.reshape(len(part), heads, -1, 2) for part in (x.value, x.variance)]
    (a, b), (a_var, b_var) = ((part[..., 0], part[..., 1]) for part in pairs)
    value = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    variance = np.stack([a_var * cos**2 + b_var * sin**2, b_var * cos**2 + a_var * sin**2], axis=-1)
    return Noisy(*(part.reshape(len(part), heads, -1) for part in (value, variance)))


def _head(q: Noisy, k: Noisy, x: Noisy, v_weight_HK: F32, rounding: Rounding) -> Noisy:
    """One head's output [T, H] and its variance; the derivative of softmax is that of the exact scores."""
    root = np.float32(q.value.shape[1] ** -0.5)
    scores_TT = np.where(np.tri(len(q.value), dtype=bool), q.value @ k.value.T * root, -np.inf)
    p_TT = np.exp(scores_TT - scores_TT.max(axis=1, keepdims=True))
    p_TT /= p_TT.sum(axis=1, keepdims=True)
    # A value's error is its token's times one error of the weights: what adds up is the mean of the inputs.
    taken = rounding.rounded(x)
    mean_TK = p_TT @ x.value
    squares_TG = _by_group(mean_TK**2 + p_TT**2 @ taken.variance).sum(axis=2)
    variance_TH = squares_TG @ rounding.weight_variance(v_weight_HK).T
    variance_TH += (p_TT**2 @ taken.variance) @ (v_weight_HK**2).T
    v_TH = x.value @ v_weight_HK.T
    out_TH = p_TT @ v_TH
    for t in range(len(out_TH)):
        away_JH = (v_TH[: t + 1] - out_TH[t]) * p_TT[t, : t + 1, None] * root
        slope_HD = away_JH.T @ k.value[: t + 1]
        variance_TH[t] += slope_HD**2 @ q.variance[t]
        variance_TH[t] += (k.variance[: t + 1] @ q.value[t] ** 2) @ away_JH**2
    return Noisy(out_TH, variance_TH)


@dataclass(frozen=True)
class Row:
    """Errors relative to the root mean square of the exact output. largest: of an element, in its own bounds."""

    part: str
    weights: str
    activations: str
    error: float
    expected: float
    bound: float
    largest: float

    @property
    def is_sound(self) -> bool:
        return self.expected / 2 < self.error <= self.bound and self.largest <= LARGEST


def compare(case: Case) -> list[Row]:
    exact_outputs = run_layers(case, "bf16", "float32")
    rows = []
    for weight_format, q_max in FORMATS:
        for activations in ACTIVATIONS:
            outputs = run_layers(case, weight_format, activations)
            if not np.array_equal(outputs["routes"], exact_outputs["routes"]):
                raise SystemExit("the routes differ, though routers are exact in every format")
            worst, expected = (
                expected_errors(case, exact_outputs, Rounding(q_max, activations, share)) for share in (WORST, EXPECTED)
            )
            for part, tokens in _parts(case):
                name = part.split(",")[0]
                truth, off = exact_outputs[name][tokens], outputs[name][tokens] - exact_outputs[name][tokens]
                size = _rms(truth)
                rows.append(
                    Row(
                        part,
                        weight_format,
                        activations,
                        error=_rms(off) / size,
                        expected=float(np.sqrt(expected[name][tokens].mean())) / size,
                        bound=float(np.sqrt(worst[name][tokens].mean())) / size,
                        largest=float((np.abs(off) / np.sqrt(worst[name][tokens])).max()),
                    )
                )
            print(f"{weight_format}, {activations} activations: done", file=sys.stderr)
    return rows


def _parts(case: Case) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
    everything = np.ones(len(case.vision_T), bool)
    return (
        ("attention", everything),
        ("dense", everything),
        ("experts, text", ~case.vision_T),
        ("experts, vision", case.vision_T),
    )


def _rms(values: F32) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="28b")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = compare(draw_case(named_shape(options.shape), options.tokens, options.seed))
    if options.json:
        print(json.dumps([{**asdict(row), "is_sound": row.is_sound} for row in rows], indent=2))
    else:
        print("| part | weights | activations | error, % | expected, % | bound, % | largest, in its bounds |")
        print("|---|---|---|---|---|---|---|")
        for row in rows:
            shares = (f"{100 * share:.3f}" for share in (row.error, row.expected, row.bound))
            print(f"| {row.part} | {row.weights} | {row.activations} | {' | '.join(shares)} | {row.largest:.2f} |")
    peak = machine.process_memory().peak
    print(f"peak memory {(peak or 0) / 1e9:.2f} GB", file=sys.stderr)
    sys.exit(0 if all(row.is_sound for row in rows) else 1)


if __name__ == "__main__":
    main()
