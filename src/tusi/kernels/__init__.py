"""The numerical operations of the runtime: native, checked, never copying.

In: C-contiguous NumPy arrays of the dtypes their names promise. Out: float32 arrays. Each op's slow twin, and its
definition, is the function of the same name in `tusi.kernels.reference`. Knows nothing of models or requests.
"""

from tusi.core.errors import BackendUnavailable
from tusi.kernels.interface import check_interface

try:
    from tusi.kernels import _native
except ImportError as error:  # pragma: no cover - an unbuilt checkout
    raise BackendUnavailable(
        f"the native extension tusi.kernels._native cannot be loaded ({error}). It is compiled by `pip install .`; "
        f"in a checkout run `scripts/build` (needs cmake, ninja, nanobind and a C++20 compiler)."
    ) from error
else:
    check_interface(_native)

from tusi.kernels.attention import (
    paged_attention,
    rotary_paged_attention,
    rotary_varlen_attention,
    store_kv,
    varlen_attention,
)
from tusi.kernels.decoder import DecoderStack, LayerKVCache, Matrix, PackedMatrix, PlainMatrix, StackLayer, run_stack
from tusi.kernels.elementwise import (
    gelu,
    layer_norm,
    quick_gelu,
    rms_norm,
    rotary_half,
    rotary_interleaved,
    silu_and_mul,
    topk_softmax,
)
from tusi.kernels.experts import Experts, PlainExperts, Pool, moe
from tusi.kernels.matmul import bf16_to_f32, f32_to_bf16, gemm_bf16, gemm_f32
from tusi.kernels.packed import (
    pack_codes,
    packed_rows,
    packed_shapes,
    qgemm,
    round_activations,
    unpack_codes,
)
from tusi.kernels.runtime import (
    configure,
    cpu_features,
    isa,
    num_threads,
    read_bandwidths,
    set_num_threads,
    supported_isas,
    unit_peaks,
)
from tusi.kernels.sampling import argmax_rows, draw_rows

__all__ = [
    "DecoderStack",
    "Experts",
    "LayerKVCache",
    "Matrix",
    "PackedMatrix",
    "PlainExperts",
    "PlainMatrix",
    "Pool",
    "StackLayer",
    "argmax_rows",
    "bf16_to_f32",
    "cpu_features",
    "draw_rows",
    "f32_to_bf16",
    "gelu",
    "gemm_bf16",
    "gemm_f32",
    "isa",
    "layer_norm",
    "moe",
    "num_threads",
    "pack_codes",
    "packed_rows",
    "packed_shapes",
    "paged_attention",
    "qgemm",
    "quick_gelu",
    "read_bandwidths",
    "rms_norm",
    "rotary_half",
    "rotary_interleaved",
    "rotary_paged_attention",
    "rotary_varlen_attention",
    "round_activations",
    "run_stack",
    "set_num_threads",
    "silu_and_mul",
    "store_kv",
    "supported_isas",
    "topk_softmax",
    "unit_peaks",
    "unpack_codes",
    "varlen_attention",
]

configure()
