// Splits rows and elements over the threads.
#include <algorithm>
#include <cmath>

#include "activation/activation.h"
#include "activation/dispatch.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

constexpr std::int64_t grain_elements = 4 * 1024;

}  // namespace

const ActivationKernels& select_activation_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa == Isa::avx512) return avx512::activation_kernels;
  if (isa == Isa::avx2) return avx2::activation_kernels;
#endif
  (void)isa;
  return generic::activation_kernels;
}

void silu_and_mul(const float* gate_up, float* out, std::int64_t rows, std::int64_t intermediate,
                  const ActivationKernels& kernels) {
  const std::int64_t grain = grain_elements / (intermediate + 1) + 1;
  parallel_ranges(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* gate = gate_up + row * 2 * intermediate;
      kernels.silu_and_mul(gate, gate + intermediate, out + row * intermediate, intermediate);
    }
  });
}

void quick_gelu(const float* x, float* out, std::int64_t count, const ActivationKernels& kernels) {
  parallel_ranges(count, grain_elements, [&](std::int64_t begin, std::int64_t end) {
    kernels.quick_gelu(x + begin, out + begin, end - begin);
  });
}

void gelu(const float* x, float* out, std::int64_t count) {
  parallel_ranges(count, grain_elements, [=](std::int64_t i, std::int64_t end) {
    for (; i < end; ++i) out[i] = 0.5F * x[i] * (1.0F + std::erf(x[i] * 0.70710678118654752F));
  });
}

}  // namespace tusi
