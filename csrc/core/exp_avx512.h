// The exponential function on sixteen floats. For AVX-512 files only; `static`, so that no other file ends up with it.
#pragma once

#include "core/avx512_intrinsics.h"

namespace tusi::avx512 {

// e^x for x <= 0, within 2 units in the last place; 0 for -inf, NaN for NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial in r (the coefficients of Cephes' expf).
static inline __m512 exp_of_negative(__m512 x) {
  const __m512 clamped = _mm512_max_ps(_mm512_set1_ps(-127.0F), x);  // e^-127 is 0; in this order NaN comes through
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(clamped, _mm512_set1_ps(1.44269504088896341F)), 8);  // nearest
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), clamped);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1F));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0F)));
  return _mm512_scalef_ps(p, n);
}

static inline float exp_of_negative(float x) {
  return _mm_cvtss_f32(_mm256_castps256_ps128(_mm512_castps512_ps256(exp_of_negative(_mm512_set1_ps(x)))));
}

}  // namespace tusi::avx512
