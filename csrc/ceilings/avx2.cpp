#include <immintrin.h>

#include "ceilings/ceilings.h"

namespace tusi::avx2 {
namespace {

constexpr int sums = 12;

std::uint64_t first_word(__m256i v) { return static_cast<std::uint64_t>(_mm256_extract_epi64(v, 0)); }

std::uint64_t fp32(std::int64_t iterations) {
  __m256 acc[sums];
  for (int j = 0; j < sums; ++j) acc[j] = _mm256_set1_ps(static_cast<float>(j));
  const __m256 x = _mm256_set1_ps(1e-3F), y = _mm256_set1_ps(1e-3F);
  for (std::int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < sums; ++j) acc[j] = _mm256_fmadd_ps(x, y, acc[j]);
  }
  for (int j = 1; j < sums; ++j) acc[0] = _mm256_add_ps(acc[0], acc[j]);
  return first_word(_mm256_castps_si256(acc[0]));
}

// A product of bytes without a dot-product unit: pairs to 16 bits, those to 32 bits, and the sum. The operand must
// change, or the compiler would multiply once.
std::uint64_t int8(std::int64_t iterations) {
  __m256i acc[sums];
  for (int j = 0; j < sums; ++j) acc[j] = _mm256_set1_epi32(j);
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < sums; ++j) {
      const __m256i pairs = _mm256_maddubs_epi16(acc[j], ones);
      acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(pairs, ones));
    }
  }
  for (int j = 1; j < sums; ++j) acc[0] = _mm256_add_epi32(acc[0], acc[j]);
  return first_word(acc[0]);
}

}  // namespace

std::uint64_t read_words(const unsigned char* data, std::int64_t bytes) {
  __m256i acc[8];
  for (int j = 0; j < 8; ++j) acc[j] = _mm256_setzero_si256();
  for (std::int64_t i = 0; i < bytes; i += 256) {
    for (int j = 0; j < 8; ++j) {
      acc[j] = _mm256_add_epi64(acc[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
    }
  }
  for (int j = 1; j < 8; ++j) acc[0] = _mm256_add_epi64(acc[0], acc[j]);
  return first_word(acc[0]) + static_cast<std::uint64_t>(_mm256_extract_epi64(acc[0], 1)) +
         static_cast<std::uint64_t>(_mm256_extract_epi64(acc[0], 2)) +
         static_cast<std::uint64_t>(_mm256_extract_epi64(acc[0], 3));
}

PeakLoop fp32_loop() noexcept { return {sums * 8, &fp32}; }
PeakLoop int8_loop() noexcept { return {sums * 32, &int8}; }

}  // namespace tusi::avx2
