// The vectors of round_groups.h, eight lanes. For the AVX2 file of qgemm only.
#pragma once

#include "core/lanes_avx2.h"
#include "qgemm/round_groups.h"

namespace tusi::avx2 {
namespace {

struct Eight {
  using Ints = __m256i;
  static constexpr std::int64_t lanes = 8;

  static __m256 load(const float* from) { return _mm256_loadu_ps(from); }
  // Zeros behind the first `count`.
  static __m256 load_first(const float* from, std::int64_t count) {
    return _mm256_maskload_ps(from, lanes_below(count));
  }
  static Ints zeros() { return _mm256_setzero_si256(); }
  static Ints magnitudes(__m256 v) { return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7FFFFFFF)); }
  static Ints larger(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
  static Ints sum(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints round(__m256 v, float factor) { return _mm256_cvtps_epi32(_mm256_mul_ps(v, _mm256_set1_ps(factor))); }
  // The low byte of each lane.
  static void store(std::int8_t* to, Ints v) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
  }
  // count: a multiple of eight.
  static void store_first(std::int8_t* to, Ints v, std::int64_t) { store(to, v); }

  static int largest_lane(Ints v) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
  }
  static int sum_lanes(Ints v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
  }
  template <class Operation>
  static __m128i lanes_of_four(const Ints (&v)[4], const Operation& operation) {
    return tusi::lanes_of_four(v, operation);
  }
};

}  // namespace
}  // namespace tusi::avx2
