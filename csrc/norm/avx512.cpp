// AVX-512 (F). The same steps as generic.cpp in the same order, for which sums stay at eight lanes; compiled without
// contraction.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/avx512_intrinsics.h"
#include "norm/norm.h"
#include "norm/sums_avx2.h"

namespace tusi::avx512 {
namespace {

constexpr int lanes = 16;

void rms_norm(const float* x, const float* weight, float* out, std::int64_t width, float eps) {
  const float mean = norm_sums::sum_of_squares(x, width, 0.0F) / static_cast<float>(width);
  const float root = norm_sums::square_root(mean + eps);
  const __m512 roots = _mm512_set1_ps(root);
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const __m512 v = _mm512_div_ps(_mm512_loadu_ps(x + i), roots);
    _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_loadu_ps(weight + i), v));
  }
  for (; i < width; ++i) out[i] = weight[i] * (x[i] / root);
}

void layer_norm(const float* x, const float* weight, const float* bias, float* out, std::int64_t width, float eps) {
  const float mean = norm_sums::sum(x, width) / static_cast<float>(width);
  const float variance = norm_sums::sum_of_squares(x, width, mean) / static_cast<float>(width);
  const float root = norm_sums::square_root(variance + eps);
  const __m512 means = _mm512_set1_ps(mean), roots = _mm512_set1_ps(root);
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const __m512 v = _mm512_div_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), means), roots);
    _mm512_storeu_ps(out + i, _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(weight + i), v), _mm512_loadu_ps(bias + i)));
  }
  for (; i < width; ++i) out[i] = weight[i] * ((x[i] - mean) / root) + bias[i];
}

}  // namespace

const NormKernels norm_kernels = {rms_norm, layer_norm};

}  // namespace tusi::avx512
