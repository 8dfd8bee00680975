// The sums of a row in the order that norm.h names, which eight lanes give by themselves. For AVX2 and AVX-512 files that
// are compiled without contraction; `static`, so that no other file ends up with them.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace tusi::norm_sums {

constexpr int lanes = 8;

// What the lanes hold, and what the row has beyond its last eight: terms[l] belongs to lane l.
static inline float add_up(__m256 sums, const float* terms, std::int64_t count) {
  float acc[lanes];
  _mm256_storeu_ps(acc, sums);
  for (std::int64_t l = 0; l < count; ++l) acc[l] += terms[l];
  return ((acc[0] + acc[4]) + (acc[1] + acc[5])) + ((acc[2] + acc[6]) + (acc[3] + acc[7]));
}

static inline float sum(const float* x, std::int64_t width) {
  __m256 sums = _mm256_setzero_ps();
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) sums = _mm256_add_ps(sums, _mm256_loadu_ps(x + i));
  return add_up(sums, x + i, width - i);
}

// sum of (x[i] - mean)^2
static inline float sum_of_squares(const float* x, std::int64_t width, float mean) {
  const __m256 means = _mm256_set1_ps(mean);
  __m256 sums = _mm256_setzero_ps();
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), means);
    sums = _mm256_add_ps(sums, _mm256_mul_ps(v, v));
  }
  float terms[lanes];
  for (std::int64_t l = 0; i + l < width; ++l) terms[l] = (x[i + l] - mean) * (x[i + l] - mean);
  return add_up(sums, terms, width - i);
}

static inline float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

}  // namespace tusi::norm_sums
