#include "rotary/rotary.h"

namespace tusi::generic {
namespace {

// `step` from pair to pair, `reach` from a pair's first to its second.
void rotate(const float* x, const float* cos, const float* sin, float* out, std::int64_t pairs, std::int64_t step,
            std::int64_t reach) {
  for (std::int64_t j = 0; j < pairs; ++j) {
    const float first = x[j * step], second = x[j * step + reach];
    out[j * step] = first * cos[j] - second * sin[j];
    out[j * step + reach] = second * cos[j] + first * sin[j];
  }
}

void interleaved(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads,
                 std::int64_t pairs) {
  for (std::int64_t n = 0; n < heads; ++n) rotate(x + n * 2 * pairs, cos, sin, out + n * 2 * pairs, pairs, 2, 1);
}

void half(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads, std::int64_t pairs) {
  for (std::int64_t n = 0; n < heads; ++n) rotate(x + n * 2 * pairs, cos, sin, out + n * 2 * pairs, pairs, 1, pairs);
}

}  // namespace

const RotaryKernels rotary_kernels = {interleaved, half};

}  // namespace tusi::generic
