// Matrix products out[t][n] = sum_k x[t][k] * w[n][k]: activations, sums and result float32, float weights.
//
//   f32    float    [N][K]
//   bf16   uint16   [N][K]             upper half of a float32
//
// Weights of integers: qgemm. The reference is gemm_* in src/tusi/kernels/reference.py.
// Every output is one dot product whose order of summation depends on K alone: a row's result does not change with the number of rows, of threads, or with its place among them. (It does differ between ISAs.)
//
// Types and declarations only: ISA files include this.
#pragma once

#include <cstdint>

#include "core/float_rows.h"

namespace tusi {

enum class WeightFormat : int { f32, bf16 };

struct PlainMatrix {
  const void* values;        // see above
  std::int64_t rows, inner;  // N, K
  WeightFormat format;
};

// Rows t0..t1 of x by rows n0..n1 of w: the product of t and n goes to out[t * stride + n].
using GemmTile = void (*)(const PlainMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, std::int64_t n0,
                          std::int64_t n1, float* out, std::int64_t stride);

namespace generic {
GemmTile gemm_tile(WeightFormat format) noexcept;
}
namespace avx2 {
GemmTile gemm_tile(WeightFormat format) noexcept;
}
namespace avx512 {
GemmTile gemm_tile(WeightFormat format) noexcept;
}

}  // namespace tusi
