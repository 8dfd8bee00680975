// The steps of the call that touch weights of packed integers.
#include <algorithm>
#include <numeric>

#include "moe/call.h"

namespace tusi {
namespace {

bool same_groups(const PackedMatrix& a, const PackedMatrix& b) {
  return a.group_size == b.group_size && a.zero == b.zero;
}

}  // namespace

NextBlock next_at(const Matrix& w, std::int64_t row) {
  const PackedMatrix* packed = std::get_if<PackedMatrix>(&w);
  return packed == nullptr ? NextBlock{} : block_at(*packed, row / block_rows);
}

void multiply(const Call& c, const PackedMatrix& w, const Rows& x, const Rectangle& to) {
  const std::int64_t begin = to.begin / block_rows, end = (to.end + block_rows - 1) / block_rows;
  for (std::int64_t block = begin; block < end; block += 2) {
    // The kernel counts rows from r0, the tile from 0.
    float* out = to.tile + (block - begin) * block_rows - to.r0 * to.width;
    BlockPair pair{{block, block + 1 < end ? block + 1 : -1}, {out, out + block_rows}, to.width,
                   {block_rows, block_rows}, {}};
    for (std::int64_t j = 0; j < 2; ++j) {
      const std::int64_t then = block + 2 + j;
      pair.next[j] = then < end ? block_at(w, then) : j == 0 ? to.next : NextBlock{};
    }
    if (c.rounds(w)) {
      c.kernels.packed.int8_pair(w, x.rounded, to.r0, to.r1, pair);
    } else {
      c.kernels.packed.float_pair(w, x.floats, to.r0, to.r1, pair);
    }
  }
}

void silu_and_mul(const Call& c, const PackedMatrix&, float* gate, const float* up, std::int64_t count) {
  c.kernels.packed.silu_and_mul(gate, up, count);
}

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

// Rows of the sorted list count through all shares; the buffers are apart by kind only for their groups.
void round_inner(const Call& c, const Item& item, const PackedMatrix& down, std::int64_t r, const float* values) {
  const std::int64_t used = std::min(item.end, down.inner);
  const std::int64_t g0 = item.begin / down.group_size, g1 = (used + down.group_size - 1) / down.group_size;
  c.work.rounded_inner[c.kind(*item.share)].round(down, c.kernels.packed, item.share->first + r, g0, g1, values);
}

}  // namespace tusi
