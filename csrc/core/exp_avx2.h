// The exponential function on eight floats. For AVX2 files only; `static`, so that no other file ends up with it.
#pragma once

#include <immintrin.h>

namespace tusi::avx2 {

// e^x for x <= 0, within 2 units in the last place; 0 below -87.3, where float32 ends; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial in r (the coefficients of Cephes' expf).
static inline __m256 exp_of_negative(__m256 x) {
  const __m256 lowest = _mm256_set1_ps(-87.3F);
  const __m256 underflow = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
  const __m256 clamped = _mm256_max_ps(lowest, x);  // in this order a NaN in x comes through
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(clamped, _mm256_set1_ps(1.44269504088896341F)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), clamped);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4F);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1F));
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0F)));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(underflow, _mm256_mul_ps(p, _mm256_castsi256_ps(exponent)));
}

static inline float exp_of_negative(float x) { return _mm256_cvtss_f32(exp_of_negative(_mm256_set1_ps(x))); }

}  // namespace tusi::avx2
