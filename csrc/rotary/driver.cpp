// Splits tokens over the threads.
#include "core/thread_pool.h"
#include "rotary/dispatch.h"
#include "rotary/rotary.h"

namespace tusi {
namespace {

constexpr std::int64_t grain_elements = 16 * 1024;

template <class Rotate>
void rotate(const RotaryArgs& a, const Rotate& rotate_token) {
  const std::int64_t pairs = a.head_dim / 2;
  const std::int64_t grain = grain_elements / (a.heads * a.head_dim + 1) + 1;
  parallel_ranges(a.tokens, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      rotate_token(a.x + t * a.stride, a.cos + t * pairs, a.sin + t * pairs, a.out + t * a.stride, a.heads, pairs);
    }
  });
}

}  // namespace

const RotaryKernels& select_rotary_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa != Isa::generic) return avx2::rotary_kernels;
#endif
  (void)isa;
  return generic::rotary_kernels;
}

void rotary_interleaved(const RotaryArgs& args, const RotaryKernels& kernels) { rotate(args, kernels.interleaved); }

void rotary_half(const RotaryArgs& args, const RotaryKernels& kernels) { rotate(args, kernels.half); }

void rotary_interleaved(const RotaryArgs& args) { rotary_interleaved(args, select_rotary_kernels(active_isa())); }

void rotary_half(const RotaryArgs& args) { rotary_half(args, select_rotary_kernels(active_isa())); }

}  // namespace tusi
