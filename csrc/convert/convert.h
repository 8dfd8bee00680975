// bfloat16 <-> float32. bfloat16 is the upper half of a float32, kept as uint16 bits; rounding is to nearest even, and
// every NaN becomes 0x7FC0. Reference: bf16_to_f32 and f32_to_bf16 in src/tusi/kernels/reference.py. Types and
// declarations only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

// Widening is a shift, which compilers make quick enough from a portable loop.
struct ConvertKernels {
  void (*round_to_bf16)(const float* values, std::uint16_t* out, std::int64_t count);
};

void bf16_to_f32(const std::uint16_t* bits, float* out, std::int64_t count);
void f32_to_bf16(const float* values, std::uint16_t* out, std::int64_t count, const ConvertKernels& kernels);

// The same on the calling thread only, for use inside other kernels; rounding with the kernels of active_isa().
void widen_bf16(const std::uint16_t* bits, float* out, std::int64_t count) noexcept;
void round_to_bf16(const float* values, std::uint16_t* out, std::int64_t count) noexcept;

namespace generic {
extern const ConvertKernels convert_kernels;
}
namespace avx2 {
extern const ConvertKernels convert_kernels;
}

}  // namespace tusi
