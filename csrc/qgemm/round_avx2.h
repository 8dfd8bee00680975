// Rounds activations to int8. For the AVX2 file of qgemm only; `static`, so that no other file ends up with it.
#pragma once

#include <immintrin.h>

#include "qgemm/qgemm.h"

namespace tusi::avx2 {

// All bits of the first `count` lanes.
static inline __m256i lanes_below(std::int64_t count) {
  const int bound = count > 8 ? 8 : static_cast<int>(count);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(bound), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline int largest_lane(__m256i v) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}

static inline int sum_lanes(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

// The low byte of each lane.
static inline void store_bytes(std::int8_t* to, __m256i v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
}

// One group, of any width and with any values.
static inline void round_group(std::int64_t columns, int zero_code, const float* from, std::int8_t* to, float* scale,
                               std::int32_t* offset) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i largest_bits = _mm256_setzero_si256();
  for (std::int64_t k = 0; k < columns; k += 8) {
    const __m256i bits = _mm256_castps_si256(_mm256_maskload_ps(from + k, lanes_below(columns - k)));
    largest_bits = _mm256_max_epi32(largest_bits, _mm256_and_si256(bits, magnitude));
  }
  const int bits = largest_lane(largest_bits);
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof(largest));
  const bool finite = bits < 0x7F800000, zero = !finite || largest < 0x1p-100F;
  *scale = finite ? (zero ? 0.0F : largest / 127.0F) : __builtin_nanf("");
  const __m256 factors = _mm256_set1_ps(zero ? 0.0F : 127.0F / largest);
  __m256i total = _mm256_setzero_si256();
  for (std::int64_t k = 0; k < columns; k += 8) {  // whole chunks, so the padding is written too
    const __m256 values = _mm256_maskload_ps(from + k, lanes_below(zero ? 0 : columns - k));
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(values, factors));
    total = _mm256_add_epi32(total, rounded);
    store_bytes(to + k, rounded);
  }
  *offset = -zero_code * sum_lanes(total);
}

// One lane for each of four vectors, by an operation that does not mind the order.
template <class Operation>
static inline __m128i lanes_of_four(const __m256i (&v)[4], const Operation& operation) {
  const __m256i ab = operation(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
  const __m256i cd = operation(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
  const __m256i all = operation(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
  return _mm256_castsi256_si128(operation(all, _mm256_permute2x128_si256(all, all, 1)));
}

// Four whole groups of `size` columns, a multiple of 8: they share the steps of which a group has few. False if a value
// is not finite: then nothing is written.
static inline bool round_four(std::int64_t size, int zero_code, const float* from, std::int8_t* to, float* scales,
                              std::int32_t* offsets) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i most[4], totals[4];
  for (int g = 0; g < 4; ++g) {
    most[g] = _mm256_setzero_si256();
    for (std::int64_t k = 0; k < size; k += 8) {
      const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(from + g * size + k));
      most[g] = _mm256_max_epi32(most[g], _mm256_and_si256(bits, magnitude));
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
    totals[g] = _mm256_setzero_si256();
    for (std::int64_t k = g * size; k < (g + 1) * size; k += 8) {
      const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + k), _mm256_set1_ps(factors[g])));
      totals[g] = _mm256_add_epi32(totals[g], rounded);
      store_bytes(to + k, rounded);
    }
  }
  const __m128i sums = lanes_of_four(totals, [](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); });
  _mm_storeu_si128(reinterpret_cast<__m128i*>(offsets), _mm_mullo_epi32(sums, _mm_set1_epi32(-zero_code)));
  return true;
}

static void round_groups(const PackedMatrix& w, std::int64_t g0, std::int64_t g1, const float* x, std::int8_t* codes,
                         float* scales, std::int32_t* offsets) {
  const std::int64_t size = w.group_size, whole = size % 8 == 0 ? w.inner / size : 0;  // groups without padding
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

}  // namespace tusi::avx2
