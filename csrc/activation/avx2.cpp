// AVX2 and FMA.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "activation/activation.h"
#include "core/exp_avx2.h"

namespace tusi::avx2 {
namespace {

constexpr int lanes = 8;

// 1 / (1 + e^-x), as e^x / (1 + e^x) for negative x: no power overflows.
__m256 sigmoid(__m256 x) {
  const __m256 negative = _mm256_or_ps(x, _mm256_set1_ps(-0.0F));
  const __m256 power = exp_of_negative(negative), one = _mm256_set1_ps(1.0F);
  return _mm256_div_ps(_mm256_blendv_ps(one, power, x), _mm256_add_ps(one, power));
}

__m256 silu_times(__m256 gate, __m256 up) { return _mm256_mul_ps(_mm256_mul_ps(gate, sigmoid(gate)), up); }

__m256 quick(__m256 x) { return _mm256_mul_ps(x, sigmoid(_mm256_mul_ps(x, _mm256_set1_ps(1.702F)))); }

void silu_and_mul(const float* gate, const float* up, float* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    _mm256_storeu_ps(out + i, silu_times(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  }
  if (i == count) return;
  float end[2][lanes] = {};
  for (std::int64_t j = 0; i + j < count; ++j) {
    end[0][j] = gate[i + j];
    end[1][j] = up[i + j];
  }
  _mm256_storeu_ps(end[0], silu_times(_mm256_loadu_ps(end[0]), _mm256_loadu_ps(end[1])));
  for (std::int64_t j = 0; i + j < count; ++j) out[i + j] = end[0][j];
}

void quick_gelu(const float* x, float* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) _mm256_storeu_ps(out + i, quick(_mm256_loadu_ps(x + i)));
  if (i == count) return;
  float end[lanes] = {};
  for (std::int64_t j = 0; i + j < count; ++j) end[j] = x[i + j];
  _mm256_storeu_ps(end, quick(_mm256_loadu_ps(end)));
  for (std::int64_t j = 0; i + j < count; ++j) out[i + j] = end[j];
}

}  // namespace

const ActivationKernels activation_kernels = {silu_and_mul, quick_gelu};

}  // namespace tusi::avx2
