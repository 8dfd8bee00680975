#include "qgemm/driver.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "norm/norm.h"

namespace tusi {
namespace {

// A block of rounded rows is read once for every pair of weight blocks, so it should stay in the second-level cache.
constexpr std::int64_t x_block_bytes = 256 * 1024;
// Below this many multiplications waking another thread costs more than it gives.
constexpr std::int64_t serial_work = 256 * 1024;
constexpr std::int64_t most_pairs = 4;  // of blocks at a time, for few tokens

// How the product is cut: items are pairs of weight blocks by blocks of tokens.
struct Plan {
  std::int64_t block_tokens, token_blocks, pairs;
};

Plan plan(const QgemmArgs& a) {
  const std::int64_t row_bytes = a.weight.chunks * chunk_columns * (a.activations == Activations::int8 ? 1 : 4);
  Plan p{};
  p.block_tokens = std::clamp<std::int64_t>(x_block_bytes / std::max<std::int64_t>(row_bytes, 1) / 6 * 6, 6, 192);
  p.token_blocks = (a.tokens + p.block_tokens - 1) / p.block_tokens;
  p.pairs = (blocks_of(a.weight) + 1) / 2;
  return p;
}

BlockPair pair_at(const QgemmArgs& a, std::int64_t pair) {
  BlockPair p{{2 * pair, 2 * pair + 1}, {nullptr, nullptr}, a.weight.rows, {0, 0}, {}};
  if (p.blocks[1] >= blocks_of(a.weight)) p.blocks[1] = -1;
  for (int j = 0; j < 2; ++j) {
    if (p.blocks[j] < 0) continue;
    p.out[j] = a.out + p.blocks[j] * block_rows;
    p.lanes[j] = static_cast<int>(std::min(block_rows, a.weight.rows - p.blocks[j] * block_rows));
    p.next[j] = block_at(a.weight, p.blocks[j] + 2);
  }
  return p;
}

// out = (add ? out : 0) + (product + bias) for rows t0..t1 of a pair whose product lies in `tile`, row t0 first.
void finish(const QgemmArgs& a, const BlockPair& p, std::int64_t t0, std::int64_t t1, const float* tile) {
  for (std::int64_t t = t0; t < t1; ++t) {
    for (int j = 0; j < 2; ++j) {
      if (p.blocks[j] < 0) continue;
      float* out = p.out[j] + t * a.weight.rows;
      const float* product = tile + (t - t0) * 2 * block_rows + j * block_rows;
      const float* bias = a.bias == nullptr ? nullptr : a.bias + p.blocks[j] * block_rows;
      for (int l = 0; l < p.lanes[j]; ++l) {
        const float value = bias == nullptr ? product[l] : product[l] + bias[l];
        out[l] = a.add ? out[l] + value : value;
      }
    }
  }
}

template <class Multiply>
void multiply_pair(const QgemmArgs& a, std::int64_t pair, std::int64_t t0, std::int64_t t1, const Multiply& multiply) {
  BlockPair p = pair_at(a, pair);
  if (a.bias == nullptr && !a.add) {
    multiply(p, t0, t1);
    return;
  }
  thread_local Scratch scratch;
  float* tile = scratch.take<float>((t1 - t0) * 2 * block_rows);
  BlockPair into = p;
  into.stride = 2 * block_rows;
  // The kernel counts rows from 0, the tile from t0.
  for (int j = 0; j < 2; ++j) into.out[j] = tile + j * block_rows - t0 * into.stride;
  multiply(into, t0, t1);
  finish(a, p, t0, t1, tile);
}

template <class Multiply>
void on_all_threads(const QgemmArgs& a, const Multiply& multiply) {
  const Plan p = plan(a);
  const auto items = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t number = begin; number < end; ++number) {
      const std::int64_t t0 = number / p.pairs * p.block_tokens, t1 = std::min(t0 + p.block_tokens, a.tokens);
      multiply_pair(a, number % p.pairs, t0, t1, multiply);
    }
  };
  const std::int64_t count = p.pairs * p.token_blocks;
  if (a.tokens * a.weight.rows * a.weight.inner <= serial_work) {
    items(0, count);
  } else {
    parallel_walk(count, a.tokens <= few_tokens ? most_pairs : 1, items);
  }
}

}  // namespace

const QgemmKernels& select_qgemm_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa == Isa::avx512 && has_vnni()) return avx512::qgemm_kernels();
  if (isa != Isa::generic) return avx2::qgemm_kernels();
#endif
  (void)isa;
  return generic::qgemm_kernels();
}

PackedMatrix packed_matrix(std::int64_t rows, std::int64_t inner, std::int64_t group_size, bool four_bits) noexcept {
  PackedMatrix w{};
  w.rows = rows;
  w.inner = inner;
  w.group_size = std::clamp<std::int64_t>(group_size, 1, std::max<std::int64_t>(inner, 1));
  w.groups = (inner + w.group_size - 1) / w.group_size;
  w.group_chunks = (w.group_size + chunk_columns - 1) / chunk_columns;
  const std::int64_t whole = std::max<std::int64_t>(w.groups - 1, 0);
  w.chunks = whole * w.group_chunks + (inner - whole * w.group_size + chunk_columns - 1) / chunk_columns;
  w.four_bits = four_bits;
  w.chunk_bytes = four_bits ? 64 : 128;
  w.zero = four_bits ? 8 : 128;
  return w;
}

NextBlock block_at(const PackedMatrix& w, std::int64_t block) noexcept {
  if (block >= blocks_of(w)) return {nullptr, nullptr};
  const std::int64_t scale_bytes = block * w.groups * block_rows * (w.float_scales ? 4 : 2);
  return {w.codes + block * w.chunks * w.chunk_bytes, static_cast<const char*>(w.scales) + scale_bytes};
}

std::int64_t blocks_of(const PackedMatrix& w) noexcept { return (w.rows + block_rows - 1) / block_rows; }

void qgemm(const QgemmArgs& args, const QgemmKernels& kernels) {
  QgemmArgs a = args;
  if (a.tokens == 0 || a.weight.rows == 0) return;
  thread_local Scratch normed;
  if (a.norm_weight != nullptr) {
    float* values = normed.take<float>(a.tokens * a.weight.inner);
    rms_norm({a.x, a.norm_weight, nullptr, values, a.tokens, a.weight.inner, a.eps});
    a.x = values;
  }
  if (a.activations == Activations::float32) {
    const FloatRows rows{a.x, a.weight.inner, nullptr};
    on_all_threads(a, [&](const BlockPair& p, std::int64_t t0, std::int64_t t1) {
      kernels.float_pair(a.weight, rows, t0, t1, p);
    });
    return;
  }
  thread_local RoundedBuffer rounded;
  round_rows(a.weight, kernels, a.x, a.tokens, &rounded);
  const RoundedRows rows = rounded.rows;
  on_all_threads(a, [&](const BlockPair& p, std::int64_t t0, std::int64_t t1) {
    kernels.int8_pair(a.weight, rows, t0, t1, p);
  });
}

void RoundedBuffer::resize(const PackedMatrix& w, std::int64_t tokens) {
  rows = {codes.take<std::int8_t>(tokens * w.chunks * chunk_columns), scales.take<float>(tokens * w.groups),
          offsets.take<std::int32_t>(tokens * w.groups), nullptr};
}

void RoundedBuffer::round(const PackedMatrix& w, const QgemmKernels& kernels, std::int64_t row, std::int64_t g0,
                          std::int64_t g1, const float* x) {
  kernels.round_groups(w, g0, g1, x, const_cast<std::int8_t*>(rows.codes) + row * w.chunks * chunk_columns,
                       const_cast<float*>(rows.scales) + row * w.groups,
                       const_cast<std::int32_t*>(rows.offsets) + row * w.groups);
}

void round_rows(const PackedMatrix& w, const QgemmKernels& kernels, const float* x, std::int64_t tokens,
                RoundedBuffer* buffer) {
  constexpr std::int64_t grain_values = 16 * 1024;
  buffer->resize(w, tokens);
  parallel_ranges(tokens, grain_values / (w.inner + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) buffer->round(w, kernels, t, 0, w.groups, x + t * w.inner);
  });
}

}  // namespace tusi
