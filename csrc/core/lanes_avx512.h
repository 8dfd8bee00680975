// Sums and maxima over the lanes of a vector. For AVX-512 files only; `static`, so that no other file ends up with them.
#pragma once

#include "core/avx512_intrinsics.h"

namespace tusi::avx512 {

static inline __m256 low_half(__m512 v) { return _mm512_castps512_ps256(v); }

static inline __m256 high_half(__m512 v) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}

static inline float sum_lanes(__m512 v) {
  const __m256 half = _mm256_add_ps(low_half(v), high_half(v));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float largest_lane(__m512 v) {
  const __m256 half = _mm256_max_ps(low_half(v), high_half(v));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

}  // namespace tusi::avx512
