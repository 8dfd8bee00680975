// AVX-512 (F, BW, DQ, VL).
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/exp_avx512.h"
#include "core/lanes_avx512.h"
#include "sampling/sampling.h"

namespace tusi::avx512 {
namespace {

constexpr int lanes = 16;

Extremes extremes(const float* x, std::int64_t count, float* block_largest) {
  const __m512 first = _mm512_set1_ps(x[0]);
  __m512 largest = first, smallest = first;
  __mmask16 nan = 0;
  for (std::int64_t begin = 0; begin < count; begin += sampling_block) {
    // What lies past the end of the row repeats the block's first value.
    const __m512 filler = _mm512_set1_ps(x[begin]);
    __m512 of_block = filler;
    for (std::int64_t i = begin; i < begin + sampling_block && i < count; i += lanes) {
      const __mmask16 mask = first_lanes(count - i);
      const __m512 values = _mm512_mask_blend_ps(mask, filler, _mm512_maskz_loadu_ps(mask, x + i));
      nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q));
      of_block = _mm512_max_ps(values, of_block);
      smallest = _mm512_min_ps(values, smallest);
    }
    largest = _mm512_max_ps(of_block, largest);
    block_largest[begin / sampling_block] = largest_lane(of_block);
  }
  if (nan != 0) return {__builtin_nanf(""), __builtin_nanf("")};
  return {largest_lane(largest), -largest_lane(_mm512_sub_ps(_mm512_setzero_ps(), smallest))};
}

void weights(const float* x, float* out, std::int64_t count, float largest, float temperature, float least,
             float lowest) {
  const __m512 all_largest = _mm512_set1_ps(largest), all_temperature = _mm512_set1_ps(temperature);
  const __m512 all_least = _mm512_set1_ps(least), all_lowest = _mm512_set1_ps(lowest);
  for (std::int64_t i = 0; i < count; i += lanes) {
    const __mmask16 mask = first_lanes(count - i);
    const __m512 values = _mm512_maskz_loadu_ps(mask, x + i);
    const __m512 q = _mm512_div_ps(_mm512_sub_ps(values, all_largest), all_temperature);
    const __mmask16 kept = static_cast<__mmask16>(_mm512_cmp_ps_mask(values, all_least, _CMP_GE_OQ) &
                                                  _mm512_cmp_ps_mask(q, all_lowest, _CMP_GE_OQ));
    const __m512 power = exp_of_negative(_mm512_min_ps(q, _mm512_setzero_ps()));
    const __m512 result = _mm512_mask_blend_ps(kept, _mm512_setzero_ps(), power);
    if (count - i >= lanes) {
      _mm512_storeu_ps(out + i, result);
    } else {
      float end[lanes];
      _mm512_storeu_ps(end, result);
      for (std::int64_t j = 0; i + j < count; ++j) out[i + j] = end[j];
    }
  }
}

double sum_at_least(const float* x, std::int64_t count, float threshold) {
  const __m512 bound = _mm512_set1_ps(threshold);
  __m512d low = _mm512_setzero_pd(), high = low;
  for (std::int64_t i = 0; i < count; i += lanes) {
    const __m512 values = _mm512_maskz_loadu_ps(first_lanes(count - i), x + i);
    const __mmask16 kept = _mm512_cmp_ps_mask(values, bound, _CMP_GE_OQ);
    const __m512 some = _mm512_mask_blend_ps(kept, _mm512_setzero_ps(), values);
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(some)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_castps512_ps256(_mm512_shuffle_f32x4(some, some, 0x4E))));
  }
  double sums[8];
  _mm512_storeu_pd(sums, _mm512_add_pd(low, high));
  double sum = 0.0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

const SamplingKernels sampling_kernels = {extremes, weights, sum_at_least};

}  // namespace tusi::avx512
