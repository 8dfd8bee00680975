// Where the keys and values of one head lie, tile by tile: in the blocks of a cache, or in rows of an activation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "attention/attention.h"

namespace tusi {

inline std::int64_t item_bytes(KvFormat format) {
  return format == KvFormat::f32 ? 4 : format == KvFormat::bf16 ? 2 : 1;
}

// Nothing to ask for yet.
inline void clear(Ahead& to, std::int64_t lines, std::int64_t step) {
  to.count = 0;
  to.lines = static_cast<int>(lines);
  to.step = static_cast<int>(step);
}

constexpr std::int64_t line_bytes = 64;

inline std::int64_t lines_of(std::int64_t bytes) { return (bytes + line_bytes - 1) / line_bytes; }

// Keys and values of one KV head of one request.
class PagedSource {
 public:
  PagedSource(const PagedAttentionArgs& a, std::int64_t request, std::int64_t kv_head)
      : a_(a),
        table_(a.block_table + request * a.blocks_per_request),
        kv_head_(kv_head),
        item_(item_bytes(a.cache.format)) {}

  KvFormat format() const { return a_.cache.format; }

  // `count` keys from a position on, a multiple of key_tile; copied to `copy` ([head_dim][key_tile]) if they do not lie
  // in whole groups. scales: [key_tile], filled if there are any.
  KeyTile keys(const AttentionKernels&, std::int64_t position, int count, float* copy, float* scales) const {
    KeyTile tile{{}, nullptr, a_.block_size, count, static_cast<int>(a_.head_dim), format()};
    if (a_.block_size % key_group == 0) {
      for (int j = 0; j < count; j += key_group) tile.groups[j / key_group] = key_at(position + j);
    } else {
      copy_keys(position, count, reinterpret_cast<char*>(copy));
      tile.stride = key_tile;
      for (int j = 0; j < count; j += key_group) {
        tile.groups[j / key_group] = reinterpret_cast<char*>(copy) + j * item_;
      }
    }
    if (format() == KvFormat::int8) {
      copy_scales(a_.cache.key_scales, position, count, scales);
      tile.scales = scales;
    }
    return tile;
  }

  void values(std::int64_t position, ValueTile& to) const {
    for_runs(position, to.count, [&](std::int64_t block, std::int64_t offset, int first, int run) {
      const char* row = value_at(block, offset);
      for (int j = 0; j < run; ++j) to.rows[first + j] = row + j * a_.head_dim * item_;
    });
  }

  // The scales of `count` values if there are any, else null. buffer: [key_span].
  const float* value_scales(std::int64_t position, int count, float* buffer) const {
    if (format() != KvFormat::int8) return nullptr;
    copy_scales(a_.cache.value_scales, position, count, buffer);
    return buffer;
  }

  // What keys() will read.
  void ask_keys(std::int64_t position, int count, Ahead& to) const {
    const std::int64_t row = a_.block_size * item_;
    if (a_.block_size <= key_tile) {  // whole blocks
      clear(to, lines_of(a_.head_dim * row), line_bytes);
      for_runs(position, count, [&](std::int64_t block, std::int64_t, int, int) {
        to.bases[to.count++] = static_cast<const char*>(a_.cache.keys) + head_of(block) * a_.head_dim * row;
      });
    } else {
      clear(to, a_.head_dim, row);
      for (int j = 0; j < count; j += key_group) {
        const void* group = key_at(position + j);
        if (to.count == 0 || line_of(group) != line_of(to.bases[to.count - 1])) to.bases[to.count++] = group;
      }
    }
    ask_scales(position, count);
  }

  // What values() will read.
  void ask_values(std::int64_t position, int count, Ahead& to) const {
    const std::int64_t row = a_.head_dim * item_;
    const int together = a_.block_size % key_group == 0 ? key_group : 1;
    clear(to, lines_of(row * together), line_bytes);
    for_runs(position, count, [&](std::int64_t block, std::int64_t offset, int, int run) {
      for (int j = 0; j < run; j += together) to.bases[to.count++] = value_at(block, offset + j);
    });
  }

 private:
  // body(block, offset, first, run): `run` of the tokens, the first of them number `first`, lie in a block from a slot on.
  template <class Body>
  void for_runs(std::int64_t position, int count, const Body& body) const {
    std::int64_t column = position / a_.block_size, offset = position % a_.block_size;
    for (int first = 0; first < count; ++column, offset = 0) {
      const int run = static_cast<int>(std::min<std::int64_t>(a_.block_size - offset, count - first));
      body(table_[column], offset, first, run);
      first += run;
    }
  }

  std::int64_t head_of(std::int64_t block) const { return block * a_.kv_heads + kv_head_; }

  const char* key_at(std::int64_t position) const {
    const std::int64_t head = head_of(table_[position / a_.block_size]);
    return static_cast<const char*>(a_.cache.keys) +
           (head * a_.head_dim * a_.block_size + position % a_.block_size) * item_;
  }

  const char* value_at(std::int64_t block, std::int64_t offset) const {
    return static_cast<const char*>(a_.cache.values) +
           (head_of(block) * a_.block_size + offset) * a_.head_dim * item_;
  }

  static std::uintptr_t line_of(const void* at) { return reinterpret_cast<std::uintptr_t>(at) / line_bytes; }

  void copy_keys(std::int64_t position, int count, char* to) const {
    for_runs(position, count, [&](std::int64_t block, std::int64_t offset, int first, int run) {
      const std::int64_t row = a_.block_size * item_;
      const char* from = static_cast<const char*>(a_.cache.keys) + head_of(block) * a_.head_dim * row + offset * item_;
      for (std::int64_t h = 0; h < a_.head_dim; ++h) {
        std::memcpy(to + (h * key_tile + first) * item_, from + h * row, static_cast<std::size_t>(run * item_));
      }
    });
  }

  void copy_scales(const float* scales, std::int64_t position, int count, float* to) const {
    for_runs(position, count, [&](std::int64_t block, std::int64_t offset, int first, int run) {
      std::memcpy(to + first, scales + head_of(block) * a_.block_size + offset, static_cast<std::size_t>(run) * 4);
    });
    std::fill(to + count, to + (count + key_group - 1) / key_group * key_group, 0.0F);
  }

  // They are few and read at once, so they are asked for at once: the keys', and the values' of the same tokens.
  void ask_scales(std::int64_t position, int count) const {
    if (format() != KvFormat::int8) return;
    for_runs(position, count, [&](std::int64_t block, std::int64_t offset, int, int run) {
      const std::int64_t at = head_of(block) * a_.block_size + offset;
      for (int j = 0; j < run; j += key_group) {
        __builtin_prefetch(a_.cache.key_scales + at + j);
        __builtin_prefetch(a_.cache.value_scales + at + j);
      }
    });
  }

  const PagedAttentionArgs& a_;
  const std::int32_t* table_;
  std::int64_t kv_head_, item_;
};

// Keys and values of one head of one segment.
class SegmentSource {
 public:
  SegmentSource(const float* k, const float* v, std::int64_t stride, std::int64_t head_dim)
      : k_(k), v_(v), stride_(stride), head_dim_(static_cast<int>(head_dim)) {}

  static KvFormat format() { return KvFormat::f32; }

  KeyTile keys(const AttentionKernels& kernels, std::int64_t position, int count, float* tile, float*) const {
    kernels.turn_keys(k_ + position * stride_, stride_, count, head_dim_, (head_dim_ + 15) / 16 * 16, tile);
    KeyTile turned{{}, nullptr, key_tile, count, head_dim_, KvFormat::f32};
    for (int j = 0; j < count; j += key_group) turned.groups[j / key_group] = tile + j;
    return turned;
  }

  void values(std::int64_t position, ValueTile& to) const {
    for (int j = 0; j < to.count; ++j) to.rows[j] = v_ + (position + j) * stride_;
  }

  static const float* value_scales(std::int64_t, int, float*) { return nullptr; }
  void ask_keys(std::int64_t position, int count, Ahead& to) const { ask(k_, position, count, to); }
  void ask_values(std::int64_t position, int count, Ahead& to) const { ask(v_, position, count, to); }

 private:
  void ask(const float* from, std::int64_t position, int count, Ahead& to) const {
    clear(to, lines_of(head_dim_ * 4), line_bytes);
    for (; to.count < count; ++to.count) to.bases[to.count] = from + (position + to.count) * stride_;
  }

  const float* k_;
  const float* v_;
  std::int64_t stride_;
  int head_dim_;
};

}  // namespace tusi
