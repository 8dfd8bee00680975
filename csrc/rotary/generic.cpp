#include "core/thread_pool.h"
#include "rotary/rotary.h"

namespace tusi {
namespace {

constexpr std::int64_t grain_elements = 16 * 1024;

// `step` from pair to pair, `reach` from a pair's first to its second.
void rotate(const RotaryArgs& a, std::int64_t step, std::int64_t reach) {
  const std::int64_t pairs = a.head_dim / 2;
  const std::int64_t grain = grain_elements / (a.heads * a.head_dim + 1) + 1;
  parallel_ranges(a.tokens, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* cos = a.cos + t * pairs;
      const float* sin = a.sin + t * pairs;
      for (std::int64_t n = 0; n < a.heads; ++n) {
        const float* x = a.x + t * a.stride + n * a.head_dim;
        float* out = a.out + t * a.stride + n * a.head_dim;
        for (std::int64_t j = 0; j < pairs; ++j) {
          const float first = x[j * step], second = x[j * step + reach];
          out[j * step] = first * cos[j] - second * sin[j];
          out[j * step + reach] = second * cos[j] + first * sin[j];
        }
      }
    }
  });
}

}  // namespace

void rotary_interleaved(const RotaryArgs& args) { rotate(args, 2, 1); }

void rotary_half(const RotaryArgs& args) { rotate(args, 1, args.head_dim / 2); }

}  // namespace tusi
