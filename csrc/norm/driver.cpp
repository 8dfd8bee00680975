// Splits rows over the threads.
#include "core/thread_pool.h"
#include "norm/dispatch.h"
#include "norm/norm.h"

namespace tusi {
namespace {

constexpr std::int64_t grain_elements = 16 * 1024;

std::int64_t rows_at_a_time(std::int64_t width) { return grain_elements / (width + 1) + 1; }

}  // namespace

const NormKernels& select_norm_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa == Isa::avx512) return avx512::norm_kernels;
  if (isa == Isa::avx2) return avx2::norm_kernels;
#endif
  (void)isa;
  return generic::norm_kernels;
}

void rms_norm(const NormArgs& a, const NormKernels& kernels) {
  parallel_ranges(a.rows, rows_at_a_time(a.width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      kernels.rms_norm(a.x + row * a.width, a.weight, a.out + row * a.width, a.width, a.eps);
    }
  });
}

void layer_norm(const NormArgs& a, const NormKernels& kernels) {
  parallel_ranges(a.rows, rows_at_a_time(a.width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      kernels.layer_norm(a.x + row * a.width, a.weight, a.bias, a.out + row * a.width, a.width, a.eps);
    }
  });
}

void rms_norm(const NormArgs& args) { rms_norm(args, select_norm_kernels(active_isa())); }

}  // namespace tusi
