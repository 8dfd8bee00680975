# The compiled module (csrc/bindings). Arrays are never converted: wrong dtype or layout is a TypeError, wrong shape,
# index or overlap a ValueError that names the argument.
#
# The module is compiled together with this file and refused beside another one (`interface.py`). Whoever changes what
# an argument means or how memory is laid out, and no signature, says so here, so that old builds are not used with it.
from typing import Any, overload

from numpy.typing import NDArray

interface: str
"""SHA-256 of this file when the module was compiled."""

def active_isa() -> str: ...
def cpu_features() -> dict[str, bool]: ...
def num_threads() -> int: ...
def read_bandwidths(n_bytes: int, rounds: int, isa: str | None) -> list[float]: ...
def unit_peaks(unit: str, rounds: int, seconds: float, isa: str | None) -> list[float]: ...
def set_active_isa(name: str) -> None: ...
def set_num_threads(n: int) -> None: ...
def supported_isas() -> list[str]: ...
def argmax_rows(logits_RV: NDArray[Any], ids_R: NDArray[Any], isa: str | None = None) -> None: ...
def draw_rows(
    logits_RV: NDArray[Any],
    row_ids_N: NDArray[Any],
    temperature_N: NDArray[Any],
    log_min_p_N: NDArray[Any],
    top_k_N: NDArray[Any],
    top_p_N: NDArray[Any],
    keys_N2: NDArray[Any],
    index_N: NDArray[Any],
    must_be_finite: bool,
    ids_N: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def bf16_to_f32(bits: NDArray[Any], out: NDArray[Any]) -> None: ...
def f32_to_bf16(values: NDArray[Any], out: NDArray[Any], isa: str | None = None) -> None: ...
def gelu(x: NDArray[Any], out: NDArray[Any]) -> None: ...
def gemm_bf16(
    x_TK: NDArray[Any],
    weight_NK: NDArray[Any],
    out: NDArray[Any],
    bias_N: NDArray[Any] | None = None,
    norm_K: NDArray[Any] | None = None,
    eps: float = 0.0,
    add: bool = False,
    isa: str | None = None,
) -> None: ...
def gemm_f32(
    x_TK: NDArray[Any],
    weight_NK: NDArray[Any],
    out: NDArray[Any],
    bias_N: NDArray[Any] | None = None,
    norm_K: NDArray[Any] | None = None,
    eps: float = 0.0,
    add: bool = False,
    isa: str | None = None,
) -> None: ...
def moe(
    x_TD: NDArray[Any],
    out: NDArray[Any],
    text: Pool | None,
    vision: Pool | None,
    shared: Experts | None,
    vision_mask_T: NDArray[Any] | None,
    topk_weights_TK: NDArray[Any],
    topk_ids_TK: NDArray[Any],
    norm_min: float,
    norm_D: NDArray[Any] | None,
    eps: float,
    add: bool,
    activations: str,
    isa: str | None = None,
) -> None: ...
def pack(
    codes_NK: NDArray[Any],
    scales_NG: NDArray[Any],
    group_size: int,
    packed_codes: NDArray[Any],
    packed_scales: NDArray[Any],
) -> None: ...
def packed_rows(
    packed_codes: NDArray[Any],
    packed_scales: NDArray[Any],
    rows: int,
    group_size: int,
    ids_T: NDArray[Any],
    out: NDArray[Any],
) -> None: ...
def qgemm(
    x_TK: NDArray[Any],
    codes: NDArray[Any],
    scales: NDArray[Any],
    rows: int,
    group_size: int,
    activations: str,
    out: NDArray[Any],
    bias_N: NDArray[Any] | None = None,
    norm_K: NDArray[Any] | None = None,
    eps: float = 0.0,
    add: bool = False,
    isa: str | None = None,
) -> None: ...
def round_activations(
    x_TK: NDArray[Any],
    group_size: int,
    four_bits: bool,
    codes_TK: NDArray[Any],
    scales_TG: NDArray[Any],
    offsets_TG: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def unpack(
    packed_codes: NDArray[Any],
    packed_scales: NDArray[Any],
    group_size: int,
    codes_NK: NDArray[Any],
    scales_NG: NDArray[Any],
) -> None: ...

class Experts:
    @overload
    def __init__(
        self,
        gate_up_codes: NDArray[Any],
        gate_up_scales: NDArray[Any],
        gate_up_group: int,
        down_codes: NDArray[Any],
        down_scales: NDArray[Any],
        down_group: int,
        width: int,
        inner: int,
        keep: object,
    ) -> None: ...
    @overload
    def __init__(self, gate_up_E2FD: NDArray[Any], down_EDF: NDArray[Any], keep: object) -> None: ...

class Pool:
    def __init__(self, weight_ED: NDArray[Any], bias_E: NDArray[Any], experts: Experts, keep: object) -> None: ...

class Matrix:
    @overload
    def __init__(
        self, codes: NDArray[Any], scales: NDArray[Any], rows: int, inner: int, group_size: int, keep: object
    ) -> None: ...
    @overload
    def __init__(self, weight_NK: NDArray[Any], keep: object) -> None: ...

class DecoderLayer:
    def __init__(
        self,
        input_norm_D: NDArray[Any],
        qkv: Matrix,
        o: Matrix,
        post_norm_D: NDArray[Any],
        text: Pool | None,
        vision: Pool | None,
        shared: Experts | None,
        keep: object,
    ) -> None: ...

class KVCache:
    def __init__(
        self,
        key_cache_CMHS: NDArray[Any],
        value_cache_CMSH: NDArray[Any],
        key_scales_CMS: NDArray[Any] | None,
        value_scales_CMS: NDArray[Any] | None,
        keep: object,
    ) -> None: ...

class DecoderStack:
    def __init__(
        self,
        layers: list[DecoderLayer],
        heads: int,
        kv_heads: int,
        head_dim: int,
        top_k: int,
        eps: float,
        norm_min: float,
        activations: str,
    ) -> None: ...

def run_stack(
    stack: DecoderStack,
    caches: list[KVCache],
    hidden_TD: NDArray[Any],
    cos_TP: NDArray[Any],
    sin_TP: NDArray[Any],
    slot_mapping_T: NDArray[Any],
    block_table_RB: NDArray[Any],
    query_start_loc_R1: NDArray[Any],
    seq_lens_R: NDArray[Any],
    vision_mask_T: NDArray[Any] | None,
    scale: float,
    topk_weights_LTK: NDArray[Any] | None,
    topk_ids_LTK: NDArray[Any] | None,
    isa: str | None = None,
) -> None: ...
def layer_norm(
    x_TD: NDArray[Any],
    weight_D: NDArray[Any],
    bias_D: NDArray[Any],
    eps: float,
    out: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def paged_attention(
    q_TNH: NDArray[Any],
    key_cache_CMHS: NDArray[Any],
    value_cache_CMSH: NDArray[Any],
    block_table_RB: NDArray[Any],
    query_start_loc_R1: NDArray[Any],
    seq_lens_R: NDArray[Any],
    scale: float,
    key_scales_CMS: NDArray[Any] | None,
    value_scales_CMS: NDArray[Any] | None,
    out: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def quick_gelu(x: NDArray[Any], out: NDArray[Any], isa: str | None = None) -> None: ...
def rms_norm(
    x_TD: NDArray[Any], weight_D: NDArray[Any], eps: float, out: NDArray[Any], isa: str | None = None
) -> None: ...
def rotary_half(
    x_TNH: NDArray[Any], cos_TP: NDArray[Any], sin_TP: NDArray[Any], out: NDArray[Any], isa: str | None = None
) -> None: ...
def rotary_interleaved(
    x_TNH: NDArray[Any], cos_TP: NDArray[Any], sin_TP: NDArray[Any], out: NDArray[Any], isa: str | None = None
) -> None: ...
def rotary_paged_attention(
    qkv_TX: NDArray[Any],
    cos_TP: NDArray[Any],
    sin_TP: NDArray[Any],
    slot_mapping_T: NDArray[Any],
    key_cache_CMHS: NDArray[Any],
    value_cache_CMSH: NDArray[Any],
    block_table_RB: NDArray[Any],
    query_start_loc_R1: NDArray[Any],
    seq_lens_R: NDArray[Any],
    scale: float,
    key_scales_CMS: NDArray[Any] | None,
    value_scales_CMS: NDArray[Any] | None,
    out: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def rotary_varlen_attention(
    qkv_TX: NDArray[Any],
    cos_TP: NDArray[Any],
    sin_TP: NDArray[Any],
    cu_seqlens: NDArray[Any],
    scale: float,
    round_to_bf16: bool,
    out: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def silu_and_mul(gate_up_T2F: NDArray[Any], out: NDArray[Any], isa: str | None = None) -> None: ...
def store_kv(
    key_TMH: NDArray[Any],
    value_TMH: NDArray[Any],
    slot_mapping_T: NDArray[Any],
    key_cache_CMHS: NDArray[Any],
    value_cache_CMSH: NDArray[Any],
    key_scales_CMS: NDArray[Any] | None,
    value_scales_CMS: NDArray[Any] | None,
) -> None: ...
def topk_softmax(
    logits_TE: NDArray[Any],
    bias_E: NDArray[Any],
    k: int,
    norm_min: float,
    weights_TK: NDArray[Any],
    ids_TK: NDArray[Any],
    isa: str | None = None,
) -> None: ...
def varlen_attention(
    q_TNH: NDArray[Any],
    k_TNH: NDArray[Any],
    v_TNH: NDArray[Any],
    cu_seqlens: NDArray[Any],
    scale: float,
    round_to_bf16: bool,
    out: NDArray[Any],
    isa: str | None = None,
) -> None: ...
