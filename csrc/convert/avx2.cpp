// AVX2.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include <immintrin.h>

#include "convert/convert.h"

namespace tusi::avx2 {
namespace {

constexpr int lanes = 16;

// Each result in the lower half of its lane.
__m256i rounded(__m256 values) {
  const __m256i words = _mm256_castps_si256(values), upper = _mm256_srli_epi32(words, 16);
  const __m256i half = _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), _mm256_and_si256(upper, _mm256_set1_epi32(1)));
  const __m256i result = _mm256_srli_epi32(_mm256_add_epi32(words, half), 16);
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(result, _mm256_set1_epi32(0x7FC0), is_nan);
}

__m256i sixteen(const float* values) {
  const __m256i both = _mm256_packus_epi32(rounded(_mm256_loadu_ps(values)), rounded(_mm256_loadu_ps(values + 8)));
  return _mm256_permute4x64_epi64(both, 0xD8);
}

void round_to_bf16(const float* values, std::uint16_t* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), sixteen(values + i));
  }
  if (i == count) return;
  float end[lanes] = {};
  std::uint16_t bits[lanes];
  for (std::int64_t j = 0; i + j < count; ++j) end[j] = values[i + j];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits), sixteen(end));
  for (std::int64_t j = 0; i + j < count; ++j) out[i + j] = bits[j];
}

}  // namespace

const ConvertKernels convert_kernels = {round_to_bf16};

}  // namespace tusi::avx2
