// The steps of the call that touch weights of packed integers.
#include <algorithm>
#include <numeric>

#include "moe/call.h"

namespace tusi {
namespace {

bool same_groups(const PackedMatrix& a, const PackedMatrix& b) {
  return a.group_size == b.group_size && a.zero == b.zero;
}

// The product of rows r0..r1 of a share with a pair of blocks: of the rounded rows, or of float ones.
void multiply(const Call& c, const PackedMatrix& w, const RoundedRows& rounded, const FloatRows& rows, std::int64_t r0,
              std::int64_t r1, const BlockPair& pair) {
  if (c.a.activations == Activations::int8) {
    c.kernels.packed.int8_pair(w, rounded, r0, r1, pair);
  } else {
    c.kernels.packed.float_pair(w, rows, r0, r1, pair);
  }
}

NextBlock block_of(const Matrix& matrix, std::int64_t block) {
  const PackedMatrix* packed = std::get_if<PackedMatrix>(&matrix);
  return packed == nullptr ? NextBlock{nullptr, nullptr} : block_at(*packed, block);
}

}  // namespace

void round_input(const Call& c) {
  if (c.a.activations != Activations::int8) return;
  const Experts* all[3] = {c.a.text == nullptr ? nullptr : &c.a.text->experts,
                           c.a.is_vision == nullptr || c.a.vision == nullptr ? nullptr : &c.a.vision->experts,
                           c.a.shared};
  const PackedMatrix* gate_up[3] = {nullptr, nullptr, nullptr};
  for (int k = 0; k < 3; ++k) {
    gate_up[k] = all[k] == nullptr ? nullptr : std::get_if<PackedMatrix>(&all[k]->gate_up);
    if (gate_up[k] == nullptr) continue;
    bool known = false;
    for (int earlier = 0; earlier < k && !known; ++earlier) {
      if (gate_up[earlier] == nullptr || !same_groups(*gate_up[earlier], *gate_up[k])) continue;
      c.work.rounded[k].rows = c.work.rounded[earlier].rows;
      known = true;
    }
    if (!known) round_rows(*gate_up[k], c.kernels.packed, c.x, c.a.tokens, &c.work.rounded[k]);
  }
}

// Whole blocks and whole groups of `down`.
std::int64_t panel_columns(const Experts& experts, const PackedMatrix& down) {
  return std::min(std::lcm(block_rows, down.group_size), experts.padded_inner);
}

void gate_up_tile(const Call& c, const Item& item, const PackedMatrix& w, std::int64_t r0, std::int64_t r1,
                  const Item* following, float* gate, float* up) {
  const Share& share = *item.share;
  const std::int64_t stride = item.end - item.begin, up_blocks = share.experts->padded_inner / block_rows;
  RoundedRows rounded = c.work.rounded[c.kind(share)].rows;
  rounded.index = c.tokens_of(share);
  const FloatRows rows{c.x, c.a.width, c.tokens_of(share)};
  for (std::int64_t n = item.begin; n < item.end; n += block_rows) {
    const std::int64_t block = n / block_rows;
    // The kernel counts rows from r0, the tile from 0.
    const std::int64_t shift = n - item.begin - r0 * stride;
    BlockPair pair{{block, up_blocks + block}, {gate + shift, up + shift}, stride, {block_rows, block_rows}, {}};
    if (n + block_rows < item.end) {
      for (int j = 0; j < 2; ++j) pair.next[j] = block_at(w, pair.blocks[j] + 1);
    } else if (following != nullptr) {
      const std::int64_t first = following->begin / block_rows;
      const Matrix then = following->share->gate_up();
      pair.next[0] = block_of(then, first);
      pair.next[1] = block_of(then, following->share->experts->padded_inner / block_rows + first);
    }
    multiply(c, w, rounded, rows, r0, r1, pair);
  }
  c.kernels.packed.silu_and_mul(gate, up, (r1 - r0) * stride);
}

// Rows of the sorted list count through all shares; the buffers are apart by kind only for their groups.
void round_inner(const Call& c, const Item& item, const PackedMatrix& down, std::int64_t r, const float* values) {
  const std::int64_t used = std::min(item.end, down.inner);
  const std::int64_t g0 = item.begin / down.group_size, g1 = (used + down.group_size - 1) / down.group_size;
  c.work.rounded_inner[c.kind(*item.share)].round(down, c.kernels.packed, item.share->first + r, g0, g1, values);
}

void down_tile(const Call& c, const DownItem& item, const PackedMatrix& w, std::int64_t r0, std::int64_t r1,
               float* tile) {
  const Share& share = *item.share;
  const std::int64_t shift = -r0 * output_columns, block = item.n / block_rows, next = item.next_column / block_rows;
  const Matrix then = item.following->down();
  const BlockPair pair{{block, item.columns > block_rows ? block + 1 : -1},
                       {tile + shift, tile + shift + block_rows},
                       output_columns,
                       {block_rows, block_rows},
                       {block_of(then, next), block_of(then, next + 1)}};
  RoundedRows rounded = c.work.rounded_inner[c.kind(share)].rows;
  if (c.rounds(w)) {
    rounded.codes += share.first * w.chunks * chunk_columns;
    rounded.scales += share.first * w.groups;
    rounded.offsets += share.first * w.groups;
  }
  const float* inner = c.inner == nullptr ? nullptr : c.inner + share.first * c.inner_stride;
  multiply(c, w, rounded, {inner, c.inner_stride, nullptr}, r0, r1, pair);
}

}  // namespace tusi
