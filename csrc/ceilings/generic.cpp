#include <cstring>

#include "ceilings/ceilings.h"

namespace tusi::generic {

std::uint64_t read_words(const unsigned char* data, std::int64_t bytes) {
  std::uint64_t sums[32] = {};
  for (std::int64_t i = 0; i < bytes; i += 256) {
    std::uint64_t words[32];
    std::memcpy(words, data + i, sizeof(words));
    for (int l = 0; l < 32; ++l) sums[l] += words[l];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

namespace {

constexpr int lanes = 48;  // twelve vectors of four

std::uint64_t multiply_add(std::int64_t iterations) {
  float sums[lanes];
  for (int l = 0; l < lanes; ++l) sums[l] = static_cast<float>(l);
  float x = 1e-3F;
  for (std::int64_t i = 0; i < iterations; ++i) {
    for (int l = 0; l < lanes; ++l) sums[l] = sums[l] * 0.5F + x;
#if defined(__GNUC__)
    __asm__ volatile("" : "+m"(x));  // so that no iteration is like the last
#endif
  }
  float total = 0.0F;
  for (const float sum : sums) total += sum;
  return static_cast<std::uint64_t>(total);
}

}  // namespace

PeakLoop fp32_loop() noexcept { return {lanes, &multiply_add}; }

}  // namespace tusi::generic
