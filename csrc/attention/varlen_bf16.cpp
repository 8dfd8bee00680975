// Packs keys and values of some heads at a time, then lets blocks of queries attend to them.
#include <algorithm>
#include <vector>

#include "attention/bf16.h"
#include "core/cpu.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

constexpr std::int64_t block_rows = 60;  // whole blocks of five and of six
// Keys and values packed at once; more heads than fit wait for the next round.
constexpr std::int64_t packed_bytes = 32 * 1024 * 1024;
constexpr float log2_e = 1.44269504088896341F;

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

struct Part {
  std::int64_t segment, begin, end;  // rows of q (a block of queries) or of k and v (a tile)
  std::int64_t tile;                 // a tile's number over all segments; of a block, its segment's first tile
};

struct Plan {
  std::vector<Part> tiles, blocks;
};

Plan make_plan(const VarlenAttentionArgs& a) {
  Plan plan;
  for (std::int64_t i = 0; i < a.segments; ++i) {
    const std::int64_t begin = a.cu_seqlens[i], end = a.cu_seqlens[i + 1];
    const std::int64_t first_tile = static_cast<std::int64_t>(plan.tiles.size());
    for (std::int64_t t = begin; t < end; t += key_tile) {
      plan.tiles.push_back({i, t, std::min<std::int64_t>(t + key_tile, end), first_tile + (t - begin) / key_tile});
    }
    for (std::int64_t t = begin; t < end; t += block_rows) {
      plan.blocks.push_back({i, t, std::min(t + block_rows, end), first_tile});
    }
  }
  return plan;
}

// Buffers of one thread, kept between calls.
struct Scratch {
  std::vector<std::uint16_t> q, p;
  std::vector<float> s, acc, before;
  std::vector<SpanSum> totals;

  explicit Scratch(std::int64_t width)
      : q(size(block_rows * width)),
        p(size(block_rows * key_span)),
        s(size(block_rows * key_span)),
        acc(size(block_rows * width)),
        before(size(block_rows)),
        totals(size(block_rows)) {}
};

Scratch& scratch(std::int64_t width) {
  static thread_local Scratch buffers(128);
  if (buffers.q.size() < size(block_rows * width)) buffers = Scratch(width);
  return buffers;
}

void attend_block(const VarlenAttentionArgs& a, const Bf16Attention& kernels, const Part& block, std::int64_t head,
                  const std::uint16_t* keys, const std::uint16_t* values, int width) {
  const int rows = static_cast<int>(block.end - block.begin), head_dim = static_cast<int>(a.head_dim);
  Scratch& buf = scratch(width);
  kernels.pack_queries(a.q + block.begin * a.stride + head * a.head_dim, a.stride, rows, head_dim, width,
                       a.scale * log2_e, buf.q.data());
  const std::int64_t at = block.tile * key_tile * width;
  kernels.attend({buf.q.data(),
                  keys + at,
                  values + at,
                  a.out + (block.begin * a.heads + head) * a.head_dim,
                  a.heads * a.head_dim,
                  rows,
                  a.cu_seqlens[block.segment + 1] - a.cu_seqlens[block.segment],
                  head_dim,
                  width,
                  buf.s.data(),
                  buf.p.data(),
                  buf.acc.data(),
                  buf.before.data(),
                  buf.totals.data()});
}

}  // namespace

const Bf16Attention* select_bf16_attention(Isa isa) noexcept {
#if defined(TUSI_X86) && !defined(TUSI_EMULATE_AVX512)
  static const bool has_bf16 = detect_cpu().avx512_bf16;
  if (isa == Isa::avx512 && has_bf16) return &avx512bf16::attention_kernels;
#endif
  (void)isa;
  return nullptr;
}

void varlen_attention_bf16(const VarlenAttentionArgs& a, const Bf16Attention& kernels) {
  const Plan plan = make_plan(a);
  const int head_dim = static_cast<int>(a.head_dim), width = (head_dim + 15) / 16 * 16;
  const std::int64_t tiles = static_cast<std::int64_t>(plan.tiles.size());
  const std::int64_t blocks = static_cast<std::int64_t>(plan.blocks.size());
  const std::int64_t head_size = tiles * key_tile * width;
  if (tiles == 0) return;
  const std::int64_t at_once = std::clamp<std::int64_t>(packed_bytes / (head_size * 4), 1, a.heads);
  std::vector<std::uint16_t> keys(size(at_once * head_size)), values(size(at_once * head_size));
  for (std::int64_t first = 0; first < a.heads; first += at_once) {
    const std::int64_t heads = std::min(at_once, a.heads - first);
    parallel_for(heads * tiles, [&](std::int64_t item) {
      const Part& tile = plan.tiles[size(item % tiles)];
      const std::int64_t from = tile.begin * a.stride + (first + item / tiles) * a.head_dim;
      const std::int64_t to = item / tiles * head_size + tile.tile * key_tile * width;
      const int count = static_cast<int>(tile.end - tile.begin);
      kernels.pack_keys(a.k + from, a.stride, count, head_dim, width, keys.data() + to);
      kernels.pack_values(a.v + from, a.stride, count, head_dim, width, values.data() + to);
    });
    parallel_for(heads * blocks, [&](std::int64_t item) {
      const std::int64_t head = item / blocks;
      attend_block(a, kernels, plan.blocks[size(item % blocks)], first + head, keys.data() + head * head_size,
                   values.data() + head * head_size, width);
    });
  }
}

}  // namespace tusi
