// Rounds activations to int8, for ISA files, on vectors as a struct V describes them (round_avx2.h, round_avx512.h); AVX2 is
// there in any case. In an unnamed namespace, so that no other file ends up with this code.
#pragma once

#include <immintrin.h>

#include "qgemm/qgemm.h"

namespace tusi {
namespace {

// One lane for each of four vectors, by an operation that does not mind the order.
template <class Operation>
__m128i lanes_of_four(const __m256i (&v)[4], const Operation& operation) {
  const __m256i ab = operation(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
  const __m256i cd = operation(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
  const __m256i all = operation(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
  return _mm256_castsi256_si128(operation(all, _mm256_permute2x128_si256(all, all, 1)));
}

// One group, of any width and with any values.
template <class V>
void round_group(std::int64_t columns, int zero_code, const float* from, std::int8_t* to, float* scale,
                 std::int32_t* offset) {
  const std::int64_t padded = (columns + chunk_columns - 1) / chunk_columns * chunk_columns;
  typename V::Ints largest_bits = V::zeros();
  for (std::int64_t k = 0; k < columns; k += V::lanes) {
    largest_bits = V::larger(largest_bits, V::magnitudes(V::load_first(from + k, columns - k)));
  }
  const int bits = V::largest_lane(largest_bits);
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof(largest));
  const bool finite = bits < 0x7F800000, zero = !finite || largest < 0x1p-100F;
  *scale = finite ? (zero ? 0.0F : largest / 127.0F) : __builtin_nanf("");
  const float factor = zero ? 0.0F : 127.0F / largest;
  typename V::Ints total = V::zeros();
  for (std::int64_t k = 0; k < padded; k += V::lanes) {  // the padding is written too
    const typename V::Ints rounded = V::round(V::load_first(from + k, zero ? 0 : columns - k), factor);
    total = V::sum(total, rounded);
    V::store_first(to + k, rounded, padded - k);
  }
  *offset = -zero_code * V::sum_lanes(total);
}

// Four whole groups of `size` columns, a multiple of V::lanes: they share the steps of which a group has few. False if a
// value is not finite: then nothing is written.
template <class V>
bool round_four(std::int64_t size, int zero_code, const float* from, std::int8_t* to, float* scales,
                std::int32_t* offsets) {
  typename V::Ints most[4], totals[4];
  for (int g = 0; g < 4; ++g) {
    most[g] = V::zeros();
    for (std::int64_t k = g * size; k < (g + 1) * size; k += V::lanes) {
      most[g] = V::larger(most[g], V::magnitudes(V::load(from + k)));
    }
  }
  const __m128i bits = V::lanes_of_four(most, [](__m256i a, __m256i b) { return _mm256_max_epi32(a, b); });
  if (_mm_movemask_epi8(_mm_cmpgt_epi32(bits, _mm_set1_epi32(0x7F7FFFFF))) != 0) return false;
  const __m128 largest = _mm_castsi128_ps(bits), end = _mm_set1_ps(127.0F);
  const __m128 small = _mm_cmplt_ps(largest, _mm_set1_ps(0x1p-100F));
  _mm_storeu_ps(scales, _mm_andnot_ps(small, _mm_div_ps(largest, end)));
  float factors[4];
  _mm_storeu_ps(factors, _mm_andnot_ps(small, _mm_div_ps(end, largest)));
  for (int g = 0; g < 4; ++g) {
    totals[g] = V::zeros();
    for (std::int64_t k = g * size; k < (g + 1) * size; k += V::lanes) {
      const typename V::Ints rounded = V::round(V::load(from + k), factors[g]);
      totals[g] = V::sum(totals[g], rounded);
      V::store(to + k, rounded);
    }
  }
  const __m128i sums = V::lanes_of_four(totals, [](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); });
  _mm_storeu_si128(reinterpret_cast<__m128i*>(offsets), _mm_mullo_epi32(sums, _mm_set1_epi32(-zero_code)));
  return true;
}

template <class V>
void round_groups(const PackedMatrix& w, std::int64_t g0, std::int64_t g1, const float* x, std::int8_t* codes,
                  float* scales, std::int32_t* offsets) {
  const std::int64_t size = w.group_size, whole = size % V::lanes == 0 ? w.inner / size : 0;  // groups without padding
  for (std::int64_t group = g0; group < g1;) {
    const float* from = x + (group - g0) * size;
    std::int8_t* to = codes + group * w.group_chunks * chunk_columns;
    if (group + 4 <= g1 && group + 4 <= whole &&
        (size == 32 ? round_four<V>(32, w.zero, from, to, scales + group, offsets + group)
                    : round_four<V>(size, w.zero, from, to, scales + group, offsets + group))) {
      group += 4;
      continue;
    }
    const std::int64_t left = w.inner - group * size;
    round_group<V>(left < size ? left : size, w.zero, from, to, scales + group, offsets + group);
    ++group;
  }
}

}  // namespace
}  // namespace tusi
