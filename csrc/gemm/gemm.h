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

namespace tusi {

enum class WeightFormat : int { f32, bf16 };

struct GemmArgs {
  const float* x;                    // [T][K]
  const void* weight;                // see above
  float* out;                        // [T][N]
  std::int64_t tokens, rows, inner;  // T, N, K
  WeightFormat format;
};

// Fills out[t0..t1][n0..n1].
using GemmTile = void (*)(const GemmArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t n0, std::int64_t n1);

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
