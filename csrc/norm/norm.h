// Row normalisation, float32.
//   rms_norm    weight * x / sqrt(mean(x^2) + eps)
//   layer_norm  weight * (x - mean) / sqrt(var + eps) + bias
// x and out are [rows][width]; out may be x itself. A row's result depends on nothing else, and is the same on every
// instruction set, bit for bit (but for which NaN a NaN is): sums are eight interleaved partial ones (element i goes to
// number i mod 8), added up as ((0 + 4) + (1 + 5)) + ((2 + 6) + (3 + 7)), and nothing is fused.
// Reference: rms_norm and layer_norm in src/tusi/kernels/reference.py. Types and declarations only: ISA files include
// this.
#pragma once

#include <cstdint>

namespace tusi {

struct NormArgs {
  const float* x;
  const float* weight;  // [width]
  const float* bias;    // [width]; unused by rms_norm
  float* out;
  std::int64_t rows, width;
  float eps;
};

// One row.
struct NormKernels {
  void (*rms_norm)(const float* x, const float* weight, float* out, std::int64_t width, float eps);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* out, std::int64_t width, float eps);
};

void rms_norm(const NormArgs& args, const NormKernels& kernels);
void layer_norm(const NormArgs& args, const NormKernels& kernels);

// With the kernels of active_isa(), for callers whose own kernels are of other operations.
void rms_norm(const NormArgs& args);

namespace generic {
extern const NormKernels norm_kernels;
}
namespace avx2 {
extern const NormKernels norm_kernels;
}
namespace avx512 {
extern const NormKernels norm_kernels;
}

}  // namespace tusi
