// Philox4x64-10 (Salmon et al., 2011): a random number from a key and a counter, with no state between them.
#include "sampling/sampling.h"

namespace tusi {
namespace {

struct Product {
  std::uint64_t high, low;
};

// The 128-bit product in four of 32 bits: not every compiler has a type for it.
Product multiply(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t a_low = a & 0xFFFFFFFFU, a_high = a >> 32, b_low = b & 0xFFFFFFFFU, b_high = b >> 32;
  const std::uint64_t middle = a_high * b_low + ((a_low * b_low) >> 32);
  const std::uint64_t other = a_low * b_high + (middle & 0xFFFFFFFFU);
  return {a_high * b_high + (middle >> 32) + (other >> 32), a * b};
}

}  // namespace

double uniform_of(const std::uint64_t key[2], std::uint64_t index) {
  // NumPy counts one up before it makes its first block.
  std::uint64_t counter[4] = {1, index, 0, 0}, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const Product first = multiply(0xD2E7470EE14C6C93U, counter[0]);
    const Product second = multiply(0xCA5A826395121157U, counter[2]);
    counter[0] = second.high ^ counter[1] ^ k0;
    counter[1] = second.low;
    counter[2] = first.high ^ counter[3] ^ k1;
    counter[3] = first.low;
    k0 += 0x9E3779B97F4A7C15U;
    k1 += 0xBB67AE8584CAA73BU;
  }
  return static_cast<double>(counter[0] >> 11) * (1.0 / 9007199254740992.0);
}

}  // namespace tusi
