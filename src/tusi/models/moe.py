"""Feed-forward parts of the decoder: the dense MLP, and the mixture of experts with one pool a modality.

In: normalised hidden states and which tokens are vision; out: what is added to the residual, and on request which
experts each token went to. Knows nothing of attention or requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.types import Activations
from tusi.kernels.packed import BLOCK_ROWS
from tusi.models.config import Ernie4_5_VLMoeTextConfig
from tusi.models.parameters import Parameters
from tusi.quant.weights import F32, I32, IntegerWeight, StackedWeight, Weight

Bool = NDArray[np.bool_]
Experts = kernels.Experts | kernels.PlainExperts


@dataclass(frozen=True, slots=True)
class RoutingRecorder:
    """Collects, over one or more forward passes, the experts of every token: layer -> list of ([T, K] ids, weights)."""

    calls: dict[int, list[tuple[I32, F32]]] = field(default_factory=dict)

    def record(self, layer: int, topk_ids_TK: I32, topk_weights_TK: F32) -> None:
        self.calls.setdefault(layer, []).append((topk_ids_TK, topk_weights_TK))

    def topk_ids(self, layer: int) -> I32:
        """[T, K] over all passes in order; ids count within the token's own pool."""
        return np.concatenate([ids for ids, _ in self.calls[layer]])

    def topk_weights(self, layer: int) -> F32:
        return np.concatenate([weights for _, weights in self.calls[layer]])


@dataclass(frozen=True, slots=True)
class MLP:
    """down(silu(gate(x)) * up(x)); gate and up are joined into one matrix when loaded.

    experts: the same for one native call, where the weights allow it (`native_experts`).
    """

    gate_up_proj: Weight
    down_proj: Weight
    experts: Experts | None

    @classmethod
    def load(cls, params: Parameters) -> MLP:
        gate_up = params.joined("gate_proj.weight", "up_proj.weight")
        down = params.weight("down_proj.weight")
        return cls(gate_up, down, single_expert(gate_up, down))

    def __call__(self, x_TD: F32) -> F32:
        if self.experts is None:
            return self.down_proj.linear(kernels.silu_and_mul(self.gate_up_proj.linear(x_TD)))
        return kernels.moe(x_TD, None, None, self.experts, top_k=0, activations=self.gate_up_proj.activations)[0]

    def residual(self, hidden_TD: F32, norm_D: F32, eps: float) -> F32:
        """hidden + MLP(rms_norm(hidden)), in place."""
        if self.experts is None:
            hidden_TD += self(kernels.rms_norm(hidden_TD, norm_D, eps))
            return hidden_TD
        return kernels.moe(
            hidden_TD,
            None,
            None,
            self.experts,
            top_k=0,
            activations=self.gate_up_proj.activations,
            norm_D=norm_D,
            eps=eps,
            add=True,
            out=hidden_TD,
        )[0]


@dataclass(frozen=True, slots=True)
class TopKRouter:
    """Chooses by softmax + correction bias, weighs by softmax alone (the bias balances load, it is not a vote)."""

    weight_ED: F32
    e_score_correction_bias_E: F32
    top_k: int
    norm_min: float

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig) -> TopKRouter:
        bias_1E = params.exact("moe_statics.e_score_correction_bias")
        return cls(params.exact("weight"), bias_1E[0], config.moe_k, config.moe_norm_min)

    def __call__(self, x_TD: F32) -> tuple[F32, I32]:
        """topk_weights [T, K] and topk_ids [T, K]."""
        logits_TE = kernels.gemm_f32(x_TD, self.weight_ED)
        return kernels.topk_softmax(logits_TE, self.e_score_correction_bias_E, self.top_k, self.norm_min)


@dataclass(frozen=True, slots=True)
class SparseMoeBlock:
    """One pool: a router and its experts. pool: the same for the native call, where the weights allow it."""

    gate: TopKRouter
    gate_up_proj: StackedWeight
    down_proj: StackedWeight
    pool: kernels.Pool | None

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig) -> SparseMoeBlock:
        gate = TopKRouter.load(params.under("gate."), config)
        gate_up = params.experts("experts.gate_up_proj")
        down = params.experts("experts.down_proj")
        experts = native_experts(gate_up, down)
        pool = kernels.Pool(gate.weight_ED, gate.e_score_correction_bias_E, experts) if experts is not None else None
        return cls(gate, gate_up, down, pool)

    def __call__(self, x_TD: F32) -> tuple[F32, F32, I32]:
        """The pool's output [T, D], topk_weights [T, K], topk_ids [T, K]."""
        topk_weights_TK, topk_ids_TK = self.gate(x_TD)
        out_TD = np.zeros_like(x_TD)
        for expert, tokens, slots in tokens_by_expert(topk_ids_TK, len(self.gate_up_proj)):
            inner_TF = kernels.silu_and_mul(self.gate_up_proj[expert].linear(x_TD[tokens]))
            # A token names an expert at most once, so no row is added to twice here.
            out_TD[tokens] += self.down_proj[expert].linear(inner_TF) * topk_weights_TK[tokens, slots, None]
        return out_TD, topk_weights_TK, topk_ids_TK


def tokens_by_expert(topk_ids_TK: I32, num_experts: int) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """For each expert that is wanted: its number, the tokens that want it, and in which of their K slots."""
    k = topk_ids_TK.shape[1]
    flat = topk_ids_TK.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat, minlength=num_experts))
    begin = 0
    for expert, end in enumerate(ends):
        if end > begin:
            yield expert, order[begin:end] // k, order[begin:end] % k
        begin = end


@dataclass(frozen=True, slots=True)
class MoeBlock:
    """Text tokens go to one pool, vision tokens to the other, all of them to the shared experts.

    One native call where all weights allow it (`is_native`), else step by step. activations: what packed experts do
    with their input; all of them do the same.
    """

    text_moe: SparseMoeBlock
    vision_moe: SparseMoeBlock
    shared_experts: MLP | None
    activations: Activations
    is_native: bool

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig) -> MoeBlock:
        shared = MLP.load(params.under("shared_experts.")) if config.shared_intermediate_size else None
        text = SparseMoeBlock.load(params.under("text_moe."), config)
        vision = SparseMoeBlock.load(params.under("vision_moe."), config)
        matrices = [text.gate_up_proj.first, vision.gate_up_proj.first]
        native = text.pool is not None and vision.pool is not None
        if shared is not None:
            matrices.append(shared.gate_up_proj)
            native = native and shared.experts is not None
        rounding = {matrix.activations for matrix in matrices if isinstance(matrix, IntegerWeight)} or {"float32"}
        return cls(text, vision, shared, min(rounding), native and len(rounding) == 1)

    def __call__(self, x_TD: F32, vision_mask_T: Bool) -> tuple[F32, F32, I32]:
        """Output [T, D], topk_weights [T, K], topk_ids [T, K] (each within the token's own pool)."""
        return self._native(x_TD, vision_mask_T) if self.is_native else self._composed(x_TD, vision_mask_T)

    def residual(self, hidden_TD: F32, norm_D: F32, eps: float, vision_mask_T: Bool) -> tuple[F32, F32, I32]:
        """hidden + MoE(rms_norm(hidden)), in place; topk_weights and topk_ids."""
        if self.is_native:
            return self._native(hidden_TD, vision_mask_T, norm_D=norm_D, eps=eps, add=True, out=hidden_TD)
        out_TD, weights_TK, ids_TK = self._composed(kernels.rms_norm(hidden_TD, norm_D, eps), vision_mask_T)
        hidden_TD += out_TD
        return hidden_TD, weights_TK, ids_TK

    def _native(self, x_TD: F32, vision_mask_T: Bool, **fused: Any) -> tuple[F32, F32, I32]:
        return kernels.moe(
            x_TD,
            self.text_moe.pool,
            self.vision_moe.pool,
            None if self.shared_experts is None else self.shared_experts.experts,
            top_k=self.text_moe.gate.top_k,
            norm_min=self.text_moe.gate.norm_min,
            vision_mask_T=vision_mask_T.view(np.uint8) if vision_mask_T.any() else None,
            activations=self.activations,
            **fused,
        )

    def _composed(self, x_TD: F32, vision_mask_T: Bool) -> tuple[F32, F32, I32]:
        if not vision_mask_T.any():
            out_TD, weights_TK, ids_TK = self.text_moe(x_TD)
        else:
            out_TD, weights_TK, ids_TK = self._both_pools(x_TD, vision_mask_T)
        if self.shared_experts is not None:
            out_TD += self.shared_experts(x_TD)
        return out_TD, weights_TK, ids_TK

    def _both_pools(self, x_TD: F32, vision_mask_T: Bool) -> tuple[F32, F32, I32]:
        out_TD = np.empty_like(x_TD)
        top_k = self.text_moe.gate.top_k
        weights_TK = np.empty((len(x_TD), top_k), np.float32)
        ids_TK = np.empty((len(x_TD), top_k), np.int32)
        for moe, tokens in (
            (self.text_moe, np.flatnonzero(~vision_mask_T)),
            (self.vision_moe, np.flatnonzero(vision_mask_T)),
        ):
            if tokens.size:
                out_TD[tokens], weights_TK[tokens], ids_TK[tokens] = moe(x_TD[tokens])
        return out_TD, weights_TK, ids_TK


def native_experts(gate_up: StackedWeight, down: StackedWeight) -> Experts | None:
    """The experts for the native call; None if one matrix is packed and the other plain, or gate ends inside a block of
    packed rows."""
    packed = isinstance(gate_up.first, IntegerWeight), isinstance(down.first, IntegerWeight)
    if packed == (False, False):
        return kernels.PlainExperts(*gate_up.arrays, *down.arrays)  # type: ignore[arg-type]
    return packed_experts(gate_up, down) if packed == (True, True) else None


def packed_experts(gate_up: StackedWeight, down: StackedWeight) -> kernels.Experts | None:
    """The same for packed integers alone."""
    first_gate_up, first_down = gate_up.first, down.first
    if not isinstance(first_gate_up, IntegerWeight) or not isinstance(first_down, IntegerWeight):
        return None
    if first_down.k % BLOCK_ROWS or first_down.activations != first_gate_up.activations:
        return None
    codes, scales = gate_up.arrays
    down_codes, down_scales = down.arrays
    return kernels.Experts(
        codes,  # type: ignore[arg-type]
        scales,  # type: ignore[arg-type]
        first_gate_up.group_size,
        down_codes,  # type: ignore[arg-type]
        down_scales,  # type: ignore[arg-type]
        first_down.group_size,
        first_down.n,
        first_down.k,
    )


def single_expert(gate_up: Weight, down: Weight) -> Experts | None:
    """The same for one expert whose arrays have no leading axis."""
    stacked = (StackedWeight(weight, tuple(array[None] for array in weight.arrays)) for weight in (gate_up, down))
    return native_experts(*stacked)
