// AVX2 and FMA.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/exp_avx2.h"
#include "core/lanes_avx2.h"
#include "sampling/sampling.h"

namespace tusi::avx2 {
namespace {

constexpr int lanes = 8;

// Up to eight values; `filler` stands in for what lies past the end.
__m256 load(const float* x, std::int64_t count, float filler) {
  if (count >= lanes) return _mm256_loadu_ps(x);
  float some[lanes];
  for (int j = 0; j < lanes; ++j) some[j] = j < count ? x[j] : filler;
  return _mm256_loadu_ps(some);
}

void store(float* out, std::int64_t count, __m256 values) {
  if (count >= lanes) return _mm256_storeu_ps(out, values);
  float some[lanes];
  _mm256_storeu_ps(some, values);
  for (std::int64_t j = 0; j < count; ++j) out[j] = some[j];
}

Extremes extremes(const float* x, std::int64_t count, float* block_largest) {
  __m256 largest = _mm256_set1_ps(x[0]), smallest = largest, nan = _mm256_setzero_ps();
  for (std::int64_t begin = 0; begin < count; begin += sampling_block) {
    __m256 of_block = _mm256_set1_ps(x[begin]);
    for (std::int64_t i = begin; i < begin + sampling_block && i < count; i += lanes) {
      const __m256 values = load(x + i, count - i, x[begin]);
      nan = _mm256_or_ps(nan, _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
      of_block = _mm256_max_ps(values, of_block);
      smallest = _mm256_min_ps(values, smallest);
    }
    largest = _mm256_max_ps(of_block, largest);
    block_largest[begin / sampling_block] = largest_lane(of_block);
  }
  if (_mm256_movemask_ps(nan) != 0) return {__builtin_nanf(""), __builtin_nanf("")};
  return {largest_lane(largest), -largest_lane(_mm256_sub_ps(_mm256_setzero_ps(), smallest))};
}

void weights(const float* x, float* out, std::int64_t count, float largest, float temperature, float least,
             float lowest) {
  const __m256 all_largest = _mm256_set1_ps(largest), all_temperature = _mm256_set1_ps(temperature);
  const __m256 all_least = _mm256_set1_ps(least), all_lowest = _mm256_set1_ps(lowest);
  for (std::int64_t i = 0; i < count; i += lanes) {
    const __m256 values = load(x + i, count - i, largest);
    const __m256 q = _mm256_div_ps(_mm256_sub_ps(values, all_largest), all_temperature);
    const __m256 kept = _mm256_and_ps(_mm256_cmp_ps(values, all_least, _CMP_GE_OQ),
                                      _mm256_cmp_ps(q, all_lowest, _CMP_GE_OQ));
    store(out + i, count - i, _mm256_and_ps(kept, exp_of_negative(_mm256_min_ps(q, _mm256_setzero_ps()))));
  }
}

double sum_at_least(const float* x, std::int64_t count, float threshold) {
  const __m256 bound = _mm256_set1_ps(threshold);
  __m256d low = _mm256_setzero_pd(), high = low;
  for (std::int64_t i = 0; i < count; i += lanes) {
    const __m256 values = load(x + i, count - i, 0.0F);
    const __m256 some = _mm256_and_ps(values, _mm256_cmp_ps(values, bound, _CMP_GE_OQ));
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(some)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(some, 1)));
  }
  double sums[4];
  _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

const SamplingKernels sampling_kernels = {extremes, weights, sum_at_least};

}  // namespace tusi::avx2
