// AVX2. Angles outside, heads inside: an angle is fetched and spread once for all heads of a token. Compiled without
// contraction.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include <immintrin.h>

#include "rotary/rotary.h"

namespace tusi::avx2 {
namespace {

// Pairs begin..end of every head, one by one.
void rest(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads, std::int64_t pairs,
          std::int64_t begin, std::int64_t step, std::int64_t reach) {
  for (std::int64_t n = 0; n < heads; ++n) {
    for (std::int64_t j = begin; j < pairs; ++j) {
      const std::int64_t at = n * 2 * pairs + j * step;
      const float first = x[at], second = x[at + reach];
      out[at] = first * cos[j] - second * sin[j];
      out[at + reach] = second * cos[j] + first * sin[j];
    }
  }
}

// Four values, each twice.
__m256 twice(const float* values) {
  const __m256i order = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(values)), order);
}

void interleaved(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads,
                 std::int64_t pairs) {
  std::int64_t j = 0;
  for (; j + 4 <= pairs; j += 4) {
    const __m256 c = twice(cos + j), s = twice(sin + j);
    for (std::int64_t n = 0; n < heads; ++n) {
      const std::int64_t at = (n * pairs + j) * 2;
      const __m256 v = _mm256_loadu_ps(x + at), swapped = _mm256_permute_ps(v, 0xB1);
      _mm256_storeu_ps(out + at, _mm256_addsub_ps(_mm256_mul_ps(v, c), _mm256_mul_ps(swapped, s)));
    }
  }
  rest(x, cos, sin, out, heads, pairs, j, 2, 1);
}

void half(const float* x, const float* cos, const float* sin, float* out, std::int64_t heads, std::int64_t pairs) {
  std::int64_t j = 0;
  for (; j + 8 <= pairs; j += 8) {
    const __m256 c = _mm256_loadu_ps(cos + j), s = _mm256_loadu_ps(sin + j);
    for (std::int64_t n = 0; n < heads; ++n) {
      const std::int64_t at = n * 2 * pairs + j;
      const __m256 first = _mm256_loadu_ps(x + at), second = _mm256_loadu_ps(x + at + pairs);
      _mm256_storeu_ps(out + at, _mm256_sub_ps(_mm256_mul_ps(first, c), _mm256_mul_ps(second, s)));
      _mm256_storeu_ps(out + at + pairs, _mm256_add_ps(_mm256_mul_ps(second, c), _mm256_mul_ps(first, s)));
    }
  }
  rest(x, cos, sin, out, heads, pairs, j, 1, pairs);
}

}  // namespace

const RotaryKernels rotary_kernels = {interleaved, half};

}  // namespace tusi::avx2
