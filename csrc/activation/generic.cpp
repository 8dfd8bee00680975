#include <cmath>

#include "activation/activation.h"

namespace tusi::generic {
namespace {

// exp of a large number is inf, and 1 / inf is the right answer.
float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

void silu_and_mul(const float* gate, const float* up, float* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void quick_gelu(const float* x, float* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = x[i] * sigmoid(1.702F * x[i]);
}

}  // namespace

const ActivationKernels activation_kernels = {silu_and_mul, quick_gelu};

}  // namespace tusi::generic
