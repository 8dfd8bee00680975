"""All layers of the decoder in one call; csrc/decoder/decoder.h says what it does.

Matrices, layers, caches and the stack are checked once, when they are made. Slow twin: the same layers one op at a time
(`models.decoder.DecoderLayer`), which give the same bits. Raises as the other kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tusi.core.types import Activations
from tusi.kernels import _native
from tusi.kernels.experts import Experts, PlainExperts, Pool
from tusi.kernels.reference import F32, I32, I64, U8, U16, KVArray


@dataclass(frozen=True, slots=True, eq=False)
class PackedMatrix:
    """A matrix [rows, inner] in packed integers, in groups of group_size columns."""

    codes: U8
    scales: U16 | F32
    rows: int
    inner: int
    group_size: int
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        native = _native.Matrix(
            self.codes, self.scales, self.rows, self.inner, self.group_size, (self.codes, self.scales)
        )
        object.__setattr__(self, "native", native)


@dataclass(frozen=True, slots=True, eq=False)
class PlainMatrix:
    """A matrix in float32 or bfloat16 (uint16 bits)."""

    weight_NK: F32 | U16
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "native", _native.Matrix(self.weight_NK, self.weight_NK))


Matrix = PackedMatrix | PlainMatrix


@dataclass(frozen=True, slots=True, eq=False)
class StackLayer:
    """One layer. qkv: the rows of queries, keys and values. Without pools `shared` is the layer's dense MLP."""

    input_norm_D: F32
    qkv: Matrix
    o: Matrix
    post_norm_D: F32
    text: Pool | None
    vision: Pool | None
    shared: Experts | PlainExperts | None
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        native = _native.DecoderLayer(
            self.input_norm_D,
            self.qkv.native,
            self.o.native,
            self.post_norm_D,
            None if self.text is None else self.text.native,
            None if self.vision is None else self.vision.native,
            None if self.shared is None else self.shared.native,
            (self.input_norm_D, self.qkv, self.o, self.post_norm_D, self.text, self.vision, self.shared),
        )
        object.__setattr__(self, "native", native)


@dataclass(frozen=True, slots=True, eq=False)
class DecoderStack:
    """Layers of one width. activations: what all packed matrices do with their input."""

    layers: tuple[StackLayer, ...]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    top_k: int
    eps: float
    norm_min: float
    activations: Activations
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        native = _native.DecoderStack(
            [layer.native for layer in self.layers],
            self.num_heads,
            self.num_kv_heads,
            self.head_dim,
            self.top_k,
            self.eps,
            self.norm_min,
            self.activations,
        )
        object.__setattr__(self, "native", native)


@dataclass(frozen=True, slots=True, eq=False)
class LayerKVCache:
    """Keys [blocks, M, H, block_size] and values [blocks, M, block_size, H] of one layer: float32, uint16 holding
    bfloat16, or int8.

    int8 comes with one float32 scale a token and head, [blocks, M, block_size].
    """

    key_CMHS: KVArray
    value_CMSH: KVArray
    key_scales_CMS: F32 | None = None
    value_scales_CMS: F32 | None = None
    native: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "native", _native.KVCache(*self.arrays, self.arrays))

    @property
    def arrays(self) -> tuple[KVArray, KVArray, F32 | None, F32 | None]:
        return self.key_CMHS, self.value_CMSH, self.key_scales_CMS, self.value_scales_CMS


def run_stack(
    stack: DecoderStack,
    kv_caches: Sequence[LayerKVCache],
    hidden_TD: F32,
    cos_TP: F32,
    sin_TP: F32,
    slot_mapping_T: I64,
    block_table_RB: I32,
    query_start_loc_R1: I32,
    seq_lens_R: I32,
    scale: float,
    *,
    vision_mask_T: U8 | None = None,
    topk_weights_LTK: F32 | None = None,
    topk_ids_LTK: I32 | None = None,
    isa: str | None = None,
) -> F32:
    """Pass hidden_TD through all layers, in place; each layer's keys and values are stored in its cache.

    vision_mask_T (0 or 1): who goes to the vision pools; None: nobody. topk_*_LTK: filled with each layer's routing if
    given; rows of dense layers are left alone. The rest as in `rotary_paged_attention` and `moe`.
    """
    _native.run_stack(
        stack.native,
        [cache.native for cache in kv_caches],
        hidden_TD,
        cos_TP,
        sin_TP,
        slot_mapping_T,
        block_table_RB,
        query_start_loc_R1,
        seq_lens_R,
        vision_mask_T,
        scale,
        topk_weights_LTK,
        topk_ids_LTK,
        isa,
    )
    return hidden_TD
