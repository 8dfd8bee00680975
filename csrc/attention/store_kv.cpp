// int8: scale = max |x| / 127 of the token's head, x = round to nearest even(x / scale) * scale; a head of zeros has
// scale 0. What is not finite makes the scale so, and the whole head NaN when it is read: damage stays visible.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "attention/attention.h"
#include "attention/source.h"
#include "convert/convert.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

constexpr std::int64_t serial_values = 64 * 1024;
constexpr std::int64_t longest_run = 16;

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

// One head of a token as it is stored.
void round_head(const StoreKvArgs& a, const float* row, void* out, float* scale) {
  switch (a.cache.format) {
    case KvFormat::f32: std::memcpy(out, row, static_cast<std::size_t>(a.head_dim) * 4); break;
    case KvFormat::bf16: round_to_bf16(row, static_cast<std::uint16_t*>(out), a.head_dim); break;
    case KvFormat::int8: *scale = round_to_int8(row, static_cast<std::int8_t*>(out), a.head_dim); break;
  }
}

struct Slot {
  std::int64_t block, offset;
};

Slot slot_of(const StoreKvArgs& a, std::int64_t token) {
  return {a.slot_mapping[token] / a.block_size, a.slot_mapping[token] % a.block_size};
}

float* scale_at(const StoreKvArgs& a, float* scales, std::int64_t head, Slot slot) {
  return scales == nullptr ? nullptr : scales + (slot.block * a.kv_heads + head) * a.block_size + slot.offset;
}

void store_values(const StoreKvArgs& a, std::int64_t head) {
  const std::int64_t item = item_bytes(a.cache.format);
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    const Slot slot = slot_of(a, t);
    const std::int64_t at = ((slot.block * a.kv_heads + head) * a.block_size + slot.offset) * a.head_dim;
    round_head(a, a.value + t * a.stride + head * a.head_dim, static_cast<char*>(a.cache.values) + at * item,
               scale_at(a, a.cache.value_scales, head, slot));
  }
}

// Tokens t..t + run lie in neighbouring slots: rows become columns. A run is short, so that what is written to stays near.
template <class T>
void turn(const T* rows, std::int64_t run, std::int64_t head_dim, T* to, std::int64_t block_size) {
  for (std::int64_t h = 0; h < head_dim; ++h) {
    for (std::int64_t j = 0; j < run; ++j) to[h * block_size + j] = rows[j * head_dim + h];
  }
}

template <class T>
void store_keys_as(const StoreKvArgs& a, std::int64_t head) {
  static thread_local std::vector<T> rows;
  if (rows.size() < static_cast<std::size_t>(longest_run * a.head_dim)) {
    rows.resize(static_cast<std::size_t>(longest_run * a.head_dim));
  }
  for (std::int64_t t = 0; t < a.tokens;) {
    const Slot slot = slot_of(a, t);
    const std::int64_t room = std::min({longest_run, a.tokens - t, a.block_size - slot.offset});
    std::int64_t run = 0;
    for (; run < room && a.slot_mapping[t + run] == a.slot_mapping[t] + run; ++run) {
      round_head(a, a.key + (t + run) * a.stride + head * a.head_dim, rows.data() + run * a.head_dim,
                 scale_at(a, a.cache.key_scales, head, {slot.block, slot.offset + run}));
    }
    T* block = static_cast<T*>(a.cache.keys) + (slot.block * a.kv_heads + head) * a.head_dim * a.block_size;
    turn(rows.data(), run, a.head_dim, block + slot.offset, a.block_size);
    t += run;
  }
}

void store_keys(const StoreKvArgs& a, std::int64_t head) {
  switch (a.cache.format) {
    case KvFormat::f32: return store_keys_as<float>(a, head);
    case KvFormat::bf16: return store_keys_as<std::uint16_t>(a, head);
    case KvFormat::int8: return store_keys_as<std::int8_t>(a, head);
  }
}

}  // namespace

// Each head's keys and values by themselves, the tokens in order: if two name one slot, the later one stays.
void store_kv(const StoreKvArgs& a) {
  parallel_if(a.tokens * a.kv_heads * a.head_dim > serial_values, 2 * a.kv_heads, [&](std::int64_t item) {
    if (item < a.kv_heads) return store_keys(a, item);
    store_values(a, item - a.kv_heads);
  });
}

}  // namespace tusi
