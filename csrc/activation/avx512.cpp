// AVX-512 (F, BW, DQ, VL).
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "activation/activation.h"
#include "core/exp_avx512.h"

namespace tusi::avx512 {
namespace {

constexpr int lanes = 16;

// 1 / (1 + e^-x), as e^x / (1 + e^x) for negative x: no power overflows.
__m512 sigmoid(__m512 x) {
  const __m512 negative = _mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), x), x);  // in this order NaN comes through
  const __m512 power = exp_of_negative(negative), one = _mm512_set1_ps(1.0F);
  const __mmask16 is_negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_div_ps(_mm512_mask_blend_ps(is_negative, one, power), _mm512_add_ps(one, power));
}

__m512 silu_times(__m512 gate, __m512 up) { return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), up); }

__m512 quick(__m512 x) { return _mm512_mul_ps(x, sigmoid(_mm512_mul_ps(x, _mm512_set1_ps(1.702F)))); }

void silu_and_mul(const float* gate, const float* up, float* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    _mm512_storeu_ps(out + i, silu_times(_mm512_loadu_ps(gate + i), _mm512_loadu_ps(up + i)));
  }
  if (i == count) return;
  float end[2][lanes] = {};
  for (std::int64_t j = 0; i + j < count; ++j) {
    end[0][j] = gate[i + j];
    end[1][j] = up[i + j];
  }
  _mm512_storeu_ps(end[0], silu_times(_mm512_loadu_ps(end[0]), _mm512_loadu_ps(end[1])));
  for (std::int64_t j = 0; i + j < count; ++j) out[i + j] = end[0][j];
}

void quick_gelu(const float* x, float* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) _mm512_storeu_ps(out + i, quick(_mm512_loadu_ps(x + i)));
  if (i == count) return;
  float end[lanes] = {};
  for (std::int64_t j = 0; i + j < count; ++j) end[j] = x[i + j];
  _mm512_storeu_ps(end, quick(_mm512_loadu_ps(end)));
  for (std::int64_t j = 0; i + j < count; ++j) out[i + j] = end[j];
}

}  // namespace

const ActivationKernels activation_kernels = {silu_and_mul, quick_gelu};

}  // namespace tusi::avx512
