// Splits elements over the threads.
#include <cstring>

#include "convert/convert.h"
#include "convert/dispatch.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {
constexpr std::int64_t grain = 64 * 1024;
}

const ConvertKernels& select_convert_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa != Isa::generic) return avx2::convert_kernels;
#endif
  (void)isa;
  return generic::convert_kernels;
}

void widen_bf16(const std::uint16_t* bits, float* out, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t word = static_cast<std::uint32_t>(bits[i]) << 16;
    std::memcpy(out + i, &word, sizeof(word));
  }
}

void round_to_bf16(const float* values, std::uint16_t* out, std::int64_t count) noexcept {
  select_convert_kernels(active_isa()).round_to_bf16(values, out, count);
}

void bf16_to_f32(const std::uint16_t* bits, float* out, std::int64_t count) {
  parallel_ranges(count, grain, [=](std::int64_t i, std::int64_t end) { widen_bf16(bits + i, out + i, end - i); });
}

void f32_to_bf16(const float* values, std::uint16_t* out, std::int64_t count, const ConvertKernels& kernels) {
  parallel_ranges(count, grain, [&](std::int64_t i, std::int64_t end) {
    kernels.round_to_bf16(values + i, out + i, end - i);
  });
}

}  // namespace tusi
