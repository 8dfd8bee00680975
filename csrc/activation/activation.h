// Activations, float32, element by element.
//   silu_and_mul  gate_up [rows][2F] -> out [rows][F]: gate * sigmoid(gate) * up
//   gelu          x/2 * (1 + erf(x / sqrt 2))
//   quick_gelu    x * sigmoid(1.702 x)
// gelu and quick_gelu may work in place. Reference: the same names in src/tusi/kernels/reference.py. Types and
// declarations only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

struct ActivationKernels {
  void (*silu_and_mul)(const float* gate, const float* up, float* out, std::int64_t count);
  void (*quick_gelu)(const float* x, float* out, std::int64_t count);
};

void silu_and_mul(const float* gate_up, float* out, std::int64_t rows, std::int64_t intermediate,
                  const ActivationKernels& kernels);
void quick_gelu(const float* x, float* out, std::int64_t count, const ActivationKernels& kernels);
void gelu(const float* x, float* out, std::int64_t count);

namespace generic {
extern const ActivationKernels activation_kernels;
}
namespace avx2 {
extern const ActivationKernels activation_kernels;
}
namespace avx512 {
extern const ActivationKernels activation_kernels;
}

}  // namespace tusi
