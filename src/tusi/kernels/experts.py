"""The feed-forward half of a decoder layer in one call, over weights of any format; csrc/moe/moe.h says what it does.

Experts and pools are checked once, when they are made. Slow twin: `reference_packed.moe`. Raises as the other kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tusi.core.types import Activations
from tusi.kernels import _native
from tusi.kernels.reference import F32, I32, U8, U16


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    """E experts of one shape in packed integers: down(silu(gate(x)) * up(x)); all arrays have a leading axis E.

    gate_up: gate's rows, then up's, each padded to whole blocks of 16 rows. width: of x; inner: of gate and up.
    """

    gate_up_codes: U8
    gate_up_scales: U16 | F32
    gate_up_group: int
    down_codes: U8
    down_scales: U16 | F32
    down_group: int
    width: int
    inner: int
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arrays = (self.gate_up_codes, self.gate_up_scales, self.down_codes, self.down_scales)
        native = _native.Experts(
            *arrays[:2], self.gate_up_group, *arrays[2:], self.down_group, self.width, self.inner, arrays
        )
        object.__setattr__(self, "native", native)


@dataclass(frozen=True, slots=True, eq=False)
class PlainExperts:
    """E experts of one shape in float32 or bfloat16 (uint16 bits); gate's F rows, then up's."""

    gate_up_E2FD: F32 | U16
    down_EDF: F32 | U16
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arrays = (self.gate_up_E2FD, self.down_EDF)
        object.__setattr__(self, "native", _native.Experts(*arrays, arrays))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Experts and the router that chooses among them: by softmax plus bias, weighing by softmax alone."""

    weight_ED: F32
    bias_E: F32
    experts: Experts | PlainExperts
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        native = _native.Pool(self.weight_ED, self.bias_E, self.experts.native, (self.weight_ED, self.bias_E))
        object.__setattr__(self, "native", native)


def moe(
    x_TD: F32,
    text: Pool | None,
    vision: Pool | None,
    shared: Experts | PlainExperts | None,
    *,
    top_k: int,
    norm_min: float = 0.0,
    vision_mask_T: U8 | None = None,
    activations: Activations = "int8",
    norm_D: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
    isa: str | None = None,
) -> tuple[F32, F32, I32]:
    """Output [T, D], topk_weights [T, K] and topk_ids [T, K], each within the token's own pool.

    vision_mask_T (0 or 1): who goes to the vision pool; None: nobody. norm_D: x is RMS-normalised with it first. add:
    to what `out` holds; `out` may be x itself. activations: what packed experts do with their input; plain ones take it
    as it is. Without pools (a dense MLP is `shared` alone) top_k must be 0.
    """
    if out is None:
        if add:
            raise ValueError("moe is to add to `out`, and none was given. Pass the array to add to.")
        out = np.empty_like(x_TD)
    weights_TK, ids_TK = np.empty((len(x_TD), top_k), np.float32), np.empty((len(x_TD), top_k), np.int32)
    _native.moe(
        x_TD,
        out,
        None if text is None else text.native,
        None if vision is None else vision.native,
        None if shared is None else shared.native,
        vision_mask_T,
        weights_TK,
        ids_TK,
        norm_min,
        norm_D,
        eps,
        add,
        activations,
        isa,
    )
    return out, weights_TK, ids_TK
