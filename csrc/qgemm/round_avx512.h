// The vectors of round_groups.h, sixteen lanes. For the AVX-512 file of qgemm only.
#pragma once

#include "core/avx512_intrinsics.h"
#include "core/lanes_avx512.h"
#include "qgemm/round_groups.h"

namespace tusi::avx512 {
namespace {

struct Sixteen {
  using Ints = __m512i;
  static constexpr std::int64_t lanes = 16;

  static __m512 load(const float* from) { return _mm512_loadu_ps(from); }
  // Zeros behind the first `count`.
  static __m512 load_first(const float* from, std::int64_t count) {
    return _mm512_maskz_loadu_ps(first_lanes(count), from);
  }
  static Ints zeros() { return _mm512_setzero_si512(); }
  static Ints magnitudes(__m512 v) { return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7FFFFFFF)); }
  static Ints larger(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
  static Ints sum(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints round(__m512 v, float factor) { return _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(factor))); }
  // The low byte of each lane.
  static void store(std::int8_t* to, Ints v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(v));
  }
  static void store_first(std::int8_t* to, Ints v, std::int64_t count) {
    _mm_mask_storeu_epi8(to, first_lanes(count), _mm512_cvtepi32_epi8(v));
  }
  static int largest_lane(Ints v) { return _mm512_reduce_max_epi32(v); }
  static int sum_lanes(Ints v) { return _mm512_reduce_add_epi32(v); }
  template <class Operation>
  static __m128i lanes_of_four(const Ints (&v)[4], const Operation& operation) {
    __m256i half[4];
    for (int g = 0; g < 4; ++g) half[g] = operation(_mm512_castsi512_si256(v[g]), _mm512_extracti64x4_epi64(v[g], 1));
    return tusi::lanes_of_four(half, operation);
  }
};

}  // namespace
}  // namespace tusi::avx512
