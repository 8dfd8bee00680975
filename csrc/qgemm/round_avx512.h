// Rounds activations to int8. For the AVX-512 file of qgemm only; `static`, so that no other file ends up with it.
#pragma once

#include "core/avx512_intrinsics.h"
#include "qgemm/qgemm.h"

namespace tusi::avx512 {

static inline __mmask16 first_lanes(std::int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1U << count) - 1U);
}

// One group, of any width and with any values.
static inline void round_group(std::int64_t columns, int zero_code, const float* from, std::int8_t* to, float* scale,
                               std::int32_t* offset) {
  const std::int64_t padded = (columns + chunk_columns - 1) / chunk_columns * chunk_columns;
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i largest_bits = _mm512_setzero_si512();
  for (std::int64_t k = 0; k < columns; k += 16) {
    const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(columns - k), from + k));
    largest_bits = _mm512_max_epi32(largest_bits, _mm512_and_si512(bits, magnitude));
  }
  const int bits = _mm512_reduce_max_epi32(largest_bits);
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof(largest));
  const bool finite = bits < 0x7F800000, zero = !finite || largest < 0x1p-100F;
  *scale = finite ? (zero ? 0.0F : largest / 127.0F) : __builtin_nanf("");
  const __m512 factors = _mm512_set1_ps(zero ? 0.0F : 127.0F / largest);
  __m512i total = _mm512_setzero_si512();
  for (std::int64_t k = 0; k < padded; k += 16) {
    const __mmask16 there = zero || k >= columns ? 0 : first_lanes(columns - k);
    const __m512 values = _mm512_maskz_loadu_ps(there, from + k);
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(values, factors));
    total = _mm512_add_epi32(total, rounded);
    _mm_mask_storeu_epi8(to + k, first_lanes(padded - k), _mm512_cvtepi32_epi8(rounded));
  }
  *offset = -zero_code * _mm512_reduce_add_epi32(total);
}

// One lane for each of four vectors, by an operation that does not mind the order.
template <class Operation>
static inline __m128i lanes_of_four(const __m512i (&v)[4], const Operation& operation) {
  __m256i half[4];
  for (int g = 0; g < 4; ++g) half[g] = operation(_mm512_castsi512_si256(v[g]), _mm512_extracti64x4_epi64(v[g], 1));
  const __m256i ab = operation(_mm256_unpacklo_epi32(half[0], half[1]), _mm256_unpackhi_epi32(half[0], half[1]));
  const __m256i cd = operation(_mm256_unpacklo_epi32(half[2], half[3]), _mm256_unpackhi_epi32(half[2], half[3]));
  const __m256i all = operation(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
  return _mm256_castsi256_si128(operation(all, _mm256_permute2x128_si256(all, all, 1)));
}

// Four whole groups of `size` columns, a multiple of 16: they share the steps of which a group has few. False if a value
// is not finite: then nothing is written.
static inline bool round_four(std::int64_t size, int zero_code, const float* from, std::int8_t* to, float* scales,
                              std::int32_t* offsets) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i most[4], totals[4];
  for (int g = 0; g < 4; ++g) {
    most[g] = _mm512_setzero_si512();
    for (std::int64_t k = 0; k < size; k += 16) {
      const __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(from + g * size + k));
      most[g] = _mm512_max_epi32(most[g], _mm512_and_si512(bits, magnitude));
    }
  }
  const __m128i bits = lanes_of_four(most, [](__m256i a, __m256i b) { return _mm256_max_epi32(a, b); });
  if (_mm_movemask_epi8(_mm_cmpgt_epi32(bits, _mm_set1_epi32(0x7F7FFFFF))) != 0) return false;
  const __m128 largest = _mm_castsi128_ps(bits), end = _mm_set1_ps(127.0F);
  const __m128 small = _mm_cmplt_ps(largest, _mm_set1_ps(0x1p-100F));
  _mm_storeu_ps(scales, _mm_andnot_ps(small, _mm_div_ps(largest, end)));
  float factors[4];
  _mm_storeu_ps(factors, _mm_andnot_ps(small, _mm_div_ps(end, largest)));
  for (int g = 0; g < 4; ++g) {
    totals[g] = _mm512_setzero_si512();
    for (std::int64_t k = g * size; k < (g + 1) * size; k += 16) {
      const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + k), _mm512_set1_ps(factors[g])));
      totals[g] = _mm512_add_epi32(totals[g], rounded);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + k), _mm512_cvtepi32_epi8(rounded));
    }
  }
  const __m128i sums = lanes_of_four(totals, [](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); });
  _mm_storeu_si128(reinterpret_cast<__m128i*>(offsets), _mm_mullo_epi32(sums, _mm_set1_epi32(-zero_code)));
  return true;
}

static void round_groups(const PackedMatrix& w, std::int64_t g0, std::int64_t g1, const float* x, std::int8_t* codes,
                         float* scales, std::int32_t* offsets) {
  const std::int64_t size = w.group_size, whole = size % 16 == 0 ? w.inner / size : 0;  // groups without padding
  for (std::int64_t group = g0; group < g1;) {
    const float* from = x + (group - g0) * size;
    std::int8_t* to = codes + group * w.group_chunks * chunk_columns;
    if (group + 4 <= g1 && group + 4 <= whole &&
        (size == 32 ? round_four(32, w.zero, from, to, scales + group, offsets + group)
                    : round_four(size, w.zero, from, to, scales + group, offsets + group))) {
      group += 4;
      continue;
    }
    const std::int64_t left = w.inner - group * size;
    round_group(left < size ? left : size, w.zero, from, to, scales + group, offsets + group);
    ++group;
  }
}

}  // namespace tusi::avx512
