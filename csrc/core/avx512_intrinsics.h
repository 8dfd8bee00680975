// The AVX-512 intrinsics: the compiler's own, or SIMDe's stand-ins where tests run the AVX-512 kernels on a machine
// without it (TUSI_EMULATE_AVX512). The functions below are the few that SIMDe 0.7.4 lacks. Included by AVX-512 files
// only; the shims are `static`, so that no other file can end up with a copy of them.
#pragma once

#if !defined(TUSI_EMULATE_AVX512)
#include <immintrin.h>
#else
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

template <class To, class From>
static To simd_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <class Vector, class Element, class Function>
static Vector simd_lanes(const Function& lane) {
  Element values[sizeof(Vector) / sizeof(Element)];
  for (int i = 0; i < static_cast<int>(sizeof(Vector) / sizeof(Element)); ++i) values[i] = lane(i);
  return simd_bits<Vector>(values);
}

static inline __m512 tusi_maskz_loadu_ps(unsigned mask, const float* from) {
  return simd_lanes<__m512, float>([=](int i) { return (mask >> i) & 1U ? from[i] : 0.0F; });
}
#define _mm512_maskz_loadu_ps tusi_maskz_loadu_ps

static inline __m256i tusi_maskz_loadu_epi16(unsigned mask, const void* from) {
  return simd_lanes<__m256i, std::uint16_t>(
      [=](int i) { return (mask >> i) & 1U ? static_cast<const std::uint16_t*>(from)[i] : std::uint16_t{0}; });
}
#define _mm256_maskz_loadu_epi16 tusi_maskz_loadu_epi16

static inline void tusi_mask_storeu_ps(float* to, unsigned mask, __m512 v) {
  float values[16];
  __builtin_memcpy(values, &v, sizeof(values));
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i) & 1U) to[i] = values[i];
  }
}
#define _mm512_mask_storeu_ps tusi_mask_storeu_ps

static inline __m512i tusi_cvtepu16_epi32(__m256i v) {
  std::uint16_t words[16];
  __builtin_memcpy(words, &v, sizeof(words));
  return simd_lanes<__m512i, std::int32_t>([&](int i) { return words[i]; });
}
#define _mm512_cvtepu16_epi32 tusi_cvtepu16_epi32

static inline __m512i tusi_cvtepi8_epi32(__m128i v) {
  std::int8_t bytes[16];
  __builtin_memcpy(bytes, &v, sizeof(bytes));
  return simd_lanes<__m512i, std::int32_t>([&](int i) { return bytes[i]; });
}
#define _mm512_cvtepi8_epi32 tusi_cvtepi8_epi32

#undef _mm512_cvtepu8_epi32
static inline __m512i tusi_cvtepu8_epi32(__m128i v) {
  std::uint8_t bytes[16];
  __builtin_memcpy(bytes, &v, sizeof(bytes));
  return simd_lanes<__m512i, std::int32_t>([&](int i) { return bytes[i]; });
}
#define _mm512_cvtepu8_epi32 tusi_cvtepu8_epi32

static inline __m512 tusi_cvtepi32_ps(__m512i v) {
  std::int32_t words[16];
  __builtin_memcpy(words, &v, sizeof(words));
  return simd_lanes<__m512, float>([&](int i) { return static_cast<float>(words[i]); });
}

// Quarters of the result: two of a, then two of b, each named by two bits of `which`.
// One array of both: GCC 12 reads the wrong one of two under -fsanitize=undefined.
static inline __m512 tusi_shuffle_f32x4(__m512 a, __m512 b, int which) {
  float from[32], to[16];
  __builtin_memcpy(from, &a, sizeof(a));
  __builtin_memcpy(from + 16, &b, sizeof(b));
  for (int quarter = 0; quarter < 4; ++quarter) {
    const int chosen = ((which >> (quarter * 2)) & 3) + (quarter < 2 ? 0 : 4);
    __builtin_memcpy(to + quarter * 4, from + chosen * 4, 16);
  }
  return simd_bits<__m512>(to);
}
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 tusi_shuffle_f32x4

#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps tusi_cvtepi32_ps

static inline __m512i tusi_cvtps_epi32(__m512 v) {
  float values[16];
  __builtin_memcpy(values, &v, sizeof(values));
  return simd_lanes<__m512i, std::int32_t>([&](int i) { return _mm_cvtss_si32(_mm_set_ss(values[i])); });
}
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 tusi_cvtps_epi32

static inline int tusi_reduce_add_epi32(__m512i v) {
  std::int32_t words[16], sum = 0;
  __builtin_memcpy(words, &v, sizeof(words));
  for (const std::int32_t word : words) sum += word;
  return sum;
}
#define _mm512_reduce_add_epi32 tusi_reduce_add_epi32

static inline int tusi_reduce_max_epi32(__m512i v) {
  std::int32_t words[16];
  __builtin_memcpy(words, &v, sizeof(words));
  std::int32_t largest = words[0];
  for (const std::int32_t word : words) largest = word > largest ? word : largest;
  return largest;
}
#define _mm512_reduce_max_epi32 tusi_reduce_max_epi32

static inline __m128i tusi_cvtepi32_epi8(__m512i v) {
  std::int32_t words[16];
  __builtin_memcpy(words, &v, sizeof(words));
  return simd_lanes<__m128i, std::int8_t>([&](int i) { return static_cast<std::int8_t>(words[i]); });
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 tusi_cvtepi32_epi8

static inline void tusi_mask_storeu_epi8(void* to, unsigned mask, __m128i v) {
  std::int8_t bytes[16];
  __builtin_memcpy(bytes, &v, sizeof(bytes));
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i) & 1U) static_cast<std::int8_t*>(to)[i] = bytes[i];
  }
}
#define _mm_mask_storeu_epi8 tusi_mask_storeu_epi8

static inline __m512i tusi_srai_epi32(__m512i v, unsigned count) {
  std::int32_t words[16];
  __builtin_memcpy(words, &v, sizeof(words));
  return simd_lanes<__m512i, std::int32_t>([&](int i) { return words[i] >> count; });
}
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 tusi_srai_epi32

static inline __m512d tusi_cvtps_pd(__m256 v) {
  float values[8];
  __builtin_memcpy(values, &v, sizeof(values));
  return simd_lanes<__m512d, double>([&](int i) { return static_cast<double>(values[i]); });
}
#undef _mm512_cvtps_pd
#define _mm512_cvtps_pd tusi_cvtps_pd
#endif
