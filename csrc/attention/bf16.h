// Full attention on dot products of bfloat16 pairs, twice as fast as float32: queries (times scale), keys, values and
// softmax weights are rounded to bfloat16 (8 bits), sums stay float32. For models whose weights are rounded anyway.
//
// Keys and values of a head are rounded and packed once, in tiles of 64 that all its queries read:
//   keys    [width / 2][64][2]   the pair of elements 2h and 2h + 1 of each key
//   values  [32][width][2]       the pair of keys 2j and 2j + 1 of each element
// The softmax runs in base 2 (its scale is folded into the queries) and keeps a running maximum, span by span.
// Types and declarations only: the ISA file includes this.
#pragma once

#include <cstdint>

#include "attention/attention.h"
#include "core/cpu.h"

namespace tusi {

// Queries of one head against all keys of its segment.
struct Bf16Block {
  const std::uint16_t* q;       // [rows][width], scaled by scale * log2 e
  const std::uint16_t* keys;    // tiles
  const std::uint16_t* values;  // tiles
  float* out;                   // row r at out + r * out_stride
  std::int64_t out_stride;
  int rows, key_count, head_dim, width;
  float* s;          // scratch [rows][key_span]
  std::uint16_t* p;  // scratch [rows][key_span]
  float* acc;        // scratch [rows][width]
  float* before;     // scratch [rows]: the factor of what was summed before this span
  SpanSum* totals;   // scratch [rows]
};

struct Bf16Attention {
  // `count` (1..64) rows of head_dim floats, `stride` floats apart, rounded into a tile; the rest of it becomes zero.
  void (*pack_keys)(const float* rows, std::int64_t stride, int count, int head_dim, int width, std::uint16_t* tile);
  void (*pack_values)(const float* rows, std::int64_t stride, int count, int head_dim, int width, std::uint16_t* tile);
  void (*pack_queries)(const float* rows, std::int64_t stride, int count, int head_dim, int width, float factor,
                       std::uint16_t* out);
  void (*attend)(const Bf16Block& block);
};

// Null where the processor or the ISA has no such dot product.
const Bf16Attention* select_bf16_attention(Isa isa) noexcept;

void varlen_attention_bf16(const VarlenAttentionArgs& args, const Bf16Attention& kernels);

namespace avx512bf16 {
extern const Bf16Attention attention_kernels;
}

}  // namespace tusi
