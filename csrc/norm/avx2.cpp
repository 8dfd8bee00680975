// AVX2. The same steps as generic.cpp in the same order; compiled without contraction.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "norm/norm.h"
#include "norm/sums_avx2.h"

namespace tusi::avx2 {
namespace {

constexpr int lanes = 8;

void rms_norm(const float* x, const float* weight, float* out, std::int64_t width, float eps) {
  const float mean = norm_sums::sum_of_squares(x, width, 0.0F) / static_cast<float>(width);
  const float root = norm_sums::square_root(mean + eps);
  const __m256 roots = _mm256_set1_ps(root);
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const __m256 v = _mm256_div_ps(_mm256_loadu_ps(x + i), roots);
    _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(weight + i), v));
  }
  for (; i < width; ++i) out[i] = weight[i] * (x[i] / root);
}

void layer_norm(const float* x, const float* weight, const float* bias, float* out, std::int64_t width, float eps) {
  const float mean = norm_sums::sum(x, width) / static_cast<float>(width);
  const float variance = norm_sums::sum_of_squares(x, width, mean) / static_cast<float>(width);
  const float root = norm_sums::square_root(variance + eps);
  const __m256 means = _mm256_set1_ps(mean), roots = _mm256_set1_ps(root);
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const __m256 v = _mm256_div_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), means), roots);
    _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(weight + i), v), _mm256_loadu_ps(bias + i)));
  }
  for (; i < width; ++i) out[i] = weight[i] * ((x[i] - mean) / root) + bias[i];
}

}  // namespace

const NormKernels norm_kernels = {rms_norm, layer_norm};

}  // namespace tusi::avx2
