// Rotary embedding, float32: each head of x [T][N][H] is rotated in H/2 pairs by the angles of its token.
//   interleaved  pairs (2j, 2j + 1)    (GPT-J order)
//   half         pairs (j, j + H/2)    (NeoX order)
//   first' = first * cos[j] - second * sin[j];  second' = second * cos[j] + first * sin[j]
// each step rounded, never fused: the same bits on every instruction set, but for which NaN a NaN is.
// cos and sin are [T][H/2]; out may be x itself. The next token of both is `stride` floats on. Reference: rotary_* in
// src/tusi/kernels/reference.py. Types and declarations only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

struct RotaryArgs {
  const float* x;
  const float* cos;
  const float* sin;
  float* out;
  std::int64_t tokens, heads, head_dim, stride;
};

// All heads of one token: x and out are [heads][2 * pairs].
struct RotaryKernels {
  void (*interleaved)(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads,
                      std::int64_t pairs);
  void (*half)(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads, std::int64_t pairs);
};

void rotary_interleaved(const RotaryArgs& args, const RotaryKernels& kernels);
void rotary_half(const RotaryArgs& args, const RotaryKernels& kernels);

// With the kernels of active_isa(), for callers whose own kernels are of other operations.
void rotary_interleaved(const RotaryArgs& args);
void rotary_half(const RotaryArgs& args);

namespace generic {
extern const RotaryKernels rotary_kernels;
}
namespace avx2 {
extern const RotaryKernels rotary_kernels;
}

}  // namespace tusi
