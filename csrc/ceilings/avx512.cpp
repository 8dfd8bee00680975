// Compiled with VNNI and BF16 as well; the dispatcher asks the processor before it takes those two loops.
#include <immintrin.h>

#include "ceilings/ceilings.h"

namespace tusi::avx512 {
namespace {

constexpr int sums = 12;

std::uint64_t first_word(__m512i v) { return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(v))); }

std::uint64_t fp32(std::int64_t iterations) {
  __m512 acc[sums];
  for (int j = 0; j < sums; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
  const __m512 x = _mm512_set1_ps(1e-3F), y = _mm512_set1_ps(1e-3F);
  for (std::int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < sums; ++j) acc[j] = _mm512_fmadd_ps(x, y, acc[j]);
  }
  for (int j = 1; j < sums; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  return first_word(_mm512_castps_si512(acc[0]));
}

std::uint64_t int8(std::int64_t iterations) {
  __m512i acc[sums];
  for (int j = 0; j < sums; ++j) acc[j] = _mm512_set1_epi32(j);
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1);
  for (std::int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < sums; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], x, y);
  }
  for (int j = 1; j < sums; ++j) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
  return first_word(acc[0]);
}

std::uint64_t bf16(std::int64_t iterations) {
  __m512 acc[sums];
  for (int j = 0; j < sums; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
  const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3F), _mm512_set1_ps(2e-3F));
  for (std::int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < sums; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], x, x);
  }
  for (int j = 1; j < sums; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  return first_word(_mm512_castps_si512(acc[0]));
}

}  // namespace

std::uint64_t read_words(const unsigned char* data, std::int64_t bytes) {
  __m512i acc[4];
  for (int j = 0; j < 4; ++j) acc[j] = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < bytes; i += 256) {
    for (int j = 0; j < 4; ++j) acc[j] = _mm512_add_epi64(acc[j], _mm512_load_si512(data + i + 64 * j));
  }
  alignas(64) std::uint64_t words[8];
  _mm512_store_si512(words, _mm512_add_epi64(_mm512_add_epi64(acc[0], acc[1]), _mm512_add_epi64(acc[2], acc[3])));
  return words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
}

PeakLoop fp32_loop() noexcept { return {sums * 16, &fp32}; }
PeakLoop int8_loop() noexcept { return {sums * 64, &int8}; }
PeakLoop bf16_loop() noexcept { return {sums * 32, &bf16}; }

}  // namespace tusi::avx512
