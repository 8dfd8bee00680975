// int8: scale = max |x| / 127 of the token's head, x = round to nearest even(x / scale) * scale; a head of zeros has
// scale 0. What is not finite makes the scale so, and the whole head NaN when it is read: damage stays visible.
#include <cmath>
#include <cstring>

#include "attention/attention.h"
#include "convert/convert.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

constexpr std::int64_t serial_values = 64 * 1024;

float round_to_int8(const float* x, std::int8_t* out, std::int64_t count) {
  float largest = 0.0F, check = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    check += x[i] * 0.0F;  // 0 unless something is not finite
  }
  if (check != 0.0F) {
    std::memset(out, 0, static_cast<std::size_t>(count));
    return check;  // NaN
  }
  const float scale = largest / 127.0F;
  if (scale == 0.0F) {
    std::memset(out, 0, static_cast<std::size_t>(count));
    return 0.0F;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const float q = std::nearbyintf(x[i] / scale);  // beyond 127 only where the scale is denormal
    out[i] = static_cast<std::int8_t>(q > 127.0F ? 127.0F : q < -127.0F ? -127.0F : q);
  }
  return scale;
}

void store(const StoreKvArgs& a, const float* rows, void* cache, float* scales) {
  const std::int64_t width = a.kv_heads * a.head_dim;
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    const float* row = rows + t * a.stride;
    const std::int64_t slot = a.slot_mapping[t];
    switch (a.format) {
      case KvFormat::f32:
        std::memcpy(static_cast<float*>(cache) + slot * width, row, static_cast<std::size_t>(width) * 4);
        break;
      case KvFormat::bf16: round_to_bf16(row, static_cast<std::uint16_t*>(cache) + slot * width, width); break;
      case KvFormat::int8:
        for (std::int64_t m = 0; m < a.kv_heads; ++m) {
          std::int8_t* to = static_cast<std::int8_t*>(cache) + slot * width + m * a.head_dim;
          scales[slot * a.kv_heads + m] = round_to_int8(row + m * a.head_dim, to, a.head_dim);
        }
        break;
    }
  }
}

}  // namespace

// Keys on one thread and values on another, each in order: if two tokens name one slot, the later one stays.
void store_kv(const StoreKvArgs& a) {
  parallel_if(a.tokens * a.kv_heads * a.head_dim > serial_values, 2, [&](std::int64_t item) {
    if (item == 0) store(a, a.key, a.key_cache, a.key_scales);
    if (item == 1) store(a, a.value, a.value_cache, a.value_scales);
  });
}

}  // namespace tusi
