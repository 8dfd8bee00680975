#include <cstring>

#include "convert/convert.h"

namespace tusi::generic {
namespace {

void round_to_bf16(const float* values, std::uint16_t* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t word;
    std::memcpy(&word, values + i, sizeof(word));
    const std::uint32_t rounded = (word + 0x7FFFU + ((word >> 16) & 1U)) >> 16;
    const bool is_nan = (word & 0x7FFFFFFFU) > 0x7F800000U;
    out[i] = static_cast<std::uint16_t>(is_nan ? 0x7FC0U : rounded);
  }
}

}  // namespace

const ConvertKernels convert_kernels = {round_to_bf16};

}  // namespace tusi::generic
