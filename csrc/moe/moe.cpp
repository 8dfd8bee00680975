#include "moe/moe.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/thread_pool.h"
#include "gemm/driver.h"
#include "moe/plan.h"
#include "norm/norm.h"
#include "routing/routing.h"

namespace tusi {
namespace {

constexpr std::int64_t tile_tokens = 96;          // rows whose intermediate values a thread holds at a time

// What one call needs beside its arguments; kept by the caller's thread from call to call.
struct Workspace {
  Scratch normed, router_logits, other_weights, other_ids, inner;
  RoundedBuffer rounded[3], rounded_inner[3];  // text pool, vision pool, shared: each by its own groups
  MoePlan plan;
};

struct Call {
  const MoeArgs& a;
  const QgemmKernels& kernels;
  Workspace& work;
  const float* x;  // after the norm

  bool rounds() const { return a.activations == Activations::int8; }
  // 0, 1, 2: text, vision, shared.
  int kind(const Share& share) const {
    if (share.experts == a.shared) return 2;
    return a.vision != nullptr && share.experts == &a.vision->experts ? 1 : 0;
  }
};

void route(const Call& c, const Pool& pool, GemmTile tile, float* weights, std::int32_t* ids) {
  const MoeArgs& a = c.a;
  const std::int64_t experts = pool.experts.count;
  float* logits = c.work.router_logits.take<float>(a.tokens * experts);
  const PlainMatrix router{pool.router.weight, experts, a.width, WeightFormat::f32};
  gemm({router, c.x, nullptr, nullptr, logits, a.tokens, 0.0F, false}, tile);
  topk_softmax({logits, pool.router.bias, weights, ids, a.tokens, experts, a.top_k, a.norm_min});
}

// Both routers see all tokens, which costs little; each token takes the answer of its own.
void route_all(const Call& c, GemmTile tile) {
  const MoeArgs& a = c.a;
  if (a.text == nullptr) return;
  route(c, *a.text, tile, a.topk_weights, a.topk_ids);
  if (a.is_vision == nullptr) return;
  float* weights = c.work.other_weights.take<float>(a.tokens * a.top_k);
  std::int32_t* ids = c.work.other_ids.take<std::int32_t>(a.tokens * a.top_k);
  route(c, *a.vision, tile, weights, ids);
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    if (a.is_vision[t] == 0) continue;
    std::copy_n(weights + t * a.top_k, a.top_k, a.topk_weights + t * a.top_k);
    std::copy_n(ids + t * a.top_k, a.top_k, a.topk_ids + t * a.top_k);
  }
}

bool same_groups(const PackedMatrix& a, const PackedMatrix& b) {
  return a.group_size == b.group_size && a.zero == b.zero;
}

// Rounds the input once for each way of grouping it that occurs.
void round_input(const Call& c) {
  const Experts* all[3] = {c.a.text == nullptr ? nullptr : &c.a.text->experts,
                           c.a.is_vision == nullptr || c.a.vision == nullptr ? nullptr : &c.a.vision->experts,
                           c.a.shared};
  for (int k = 0; k < 3; ++k) {
    if (all[k] == nullptr) continue;
    bool known = false;
    for (int earlier = 0; earlier < k && !known; ++earlier) {
      if (all[earlier] == nullptr || !same_groups(all[earlier]->gate_up, all[k]->gate_up)) continue;
      c.work.rounded[k].rows = c.work.rounded[earlier].rows;
      known = true;
    }
    if (!known) round_rows(all[k]->gate_up, c.kernels, c.x, c.a.tokens, &c.work.rounded[k]);
  }
}

// Columns of the intermediate vector that are made together: whole blocks and whole groups of `down`.
std::int64_t panel_columns(const Share& share) {
  const std::int64_t whole = std::lcm(block_rows, share.experts->down.group_size);
  return std::min(whole, share.experts->padded_inner);
}

// A piece of one expert's work.
struct Item {
  const Share* share;
  std::int64_t begin, end;
};

// Panels of all experts, one behind the other.
void make_items(const MoePlan& plan, std::vector<Item>* items) {
  items->clear();
  for (const Share& share : plan.shares) {
    const std::int64_t width = share.experts->padded_inner, step = panel_columns(share);
    for (std::int64_t n = 0; n < width; n += step) items->push_back({&share, n, std::min(n + step, width)});
  }
}

// Columns begin..end of silu(gate) * up for rows r0..r1 of a share, into tile [r1 - r0][end - begin].
void gate_up_tile(const Call& c, const Share& share, std::int64_t r0, std::int64_t r1, std::int64_t begin,
                  std::int64_t end, const Item* following, float* gate, float* up) {
  const PackedMatrix w = share.gate_up();
  const std::int64_t stride = end - begin, up_blocks = share.experts->padded_inner / block_rows;
  const std::int32_t* index = c.work.plan.tokens.data() + share.first;
  for (std::int64_t n = begin; n < end; n += block_rows) {
    const std::int64_t block = n / block_rows;
    // The kernel counts rows from r0, the tile from 0.
    const std::int64_t shift = n - begin - r0 * stride;
    BlockPair pair{{block, up_blocks + block}, {gate + shift, up + shift}, stride, {block_rows, block_rows}, {}};
    if (n + block_rows < end) {
      for (int j = 0; j < 2; ++j) pair.next[j] = block_at(w, pair.blocks[j] + 1);
    } else if (following != nullptr) {
      const std::int64_t first = following->begin / block_rows;
      const PackedMatrix then = following->share->gate_up();
      pair.next[0] = block_at(then, first);
      pair.next[1] = block_at(then, following->share->experts->padded_inner / block_rows + first);
    }
    if (c.rounds()) {
      RoundedRows x = c.work.rounded[c.kind(share)].rows;
      x.index = index;
      c.kernels.int8_pair(w, x, r0, r1, pair);
    } else {
      c.kernels.float_pair(w, {c.x, c.a.width, index}, r0, r1, pair);
    }
  }
  c.kernels.silu_and_mul(gate, up, (r1 - r0) * stride);
}

// Rows of the sorted list count through all shares; rounded_inner keeps them apart by kind only for their groups.
// following: what the thread does next, or null.
void gate_up_item(const Call& c, const Item& item, const Item* following, float* inner, std::int64_t inner_stride) {
  const Share& share = *item.share;
  const PackedMatrix& down = share.experts->down;
  const std::int64_t width = item.end - item.begin;
  thread_local Scratch scratch;
  float* gate = scratch.take<float>(2 * tile_tokens * width);
  float* up = gate + tile_tokens * width;
  const std::int64_t used = std::min(item.end, down.inner) - item.begin;
  for (std::int64_t r0 = 0; r0 < share.rows; r0 += tile_tokens) {
    const std::int64_t r1 = std::min(r0 + tile_tokens, share.rows);
    gate_up_tile(c, share, r0, r1, item.begin, item.end, following, gate, up);
    for (std::int64_t r = r0; r < r1; ++r) {
      const float* values = gate + (r - r0) * width;
      const std::int64_t row = share.first + r;
      if (c.rounds()) {
        const std::int64_t g0 = item.begin / down.group_size;
        const std::int64_t g1 = (item.begin + used + down.group_size - 1) / down.group_size;
        c.work.rounded_inner[c.kind(share)].round(down, c.kernels, row, g0, g1, values);
      } else {
        std::copy_n(values, used, inner + row * inner_stride + item.begin);
      }
    }
  }
}

// The product of a share's rows r0..r1 with a pair of blocks of `down`, into tile [r1 - r0][32].
void down_tile(const Call& c, const Share& share, const float* inner, std::int64_t inner_stride, std::int64_t r0,
               std::int64_t r1, const std::int64_t (&blocks)[2], const NextBlock (&next)[2], float* tile) {
  const std::int64_t stride = 2 * block_rows, shift = -r0 * stride;
  const PackedMatrix w = share.down();
  const BlockPair pair{{blocks[0], blocks[1]}, {tile + shift, tile + shift + block_rows}, stride,
                       {block_rows, block_rows}, {next[0], next[1]}};
  if (c.rounds()) {
    RoundedRows x = c.work.rounded_inner[c.kind(share)].rows;
    x.codes += share.first * w.chunks * chunk_columns;
    x.scales += share.first * w.groups;
    x.offsets += share.first * w.groups;
    c.kernels.int8_pair(w, x, r0, r1, pair);
  } else {
    c.kernels.float_pair(w, {inner + share.first * inner_stride, inner_stride, nullptr}, r0, r1, pair);
  }
}

// Columns n..n + 32 of the output, for all tokens and experts.
void down_columns(const Call& c, const float* inner, std::int64_t inner_stride, std::int64_t n) {
  const MoeArgs& a = c.a;
  const std::int64_t columns = std::min(2 * block_rows, a.width - n);
  const std::int64_t blocks[2] = {n / block_rows, columns > block_rows ? n / block_rows + 1 : -1};
  thread_local Scratch scratch;
  float* sums = scratch.take<float>((a.tokens + tile_tokens) * 2 * block_rows);
  float* tile = sums + a.tokens * 2 * block_rows;
  std::memset(sums, 0, static_cast<std::size_t>(a.tokens * 2 * block_rows) * sizeof(float));
  const std::vector<Share>& shares = c.work.plan.shares;
  for (std::size_t s = 0; s < shares.size(); ++s) {
    const Share& share = shares[s];
    // After the last expert come the first one's next columns.
    const bool is_last = s + 1 == shares.size();
    const PackedMatrix then = shares[is_last ? 0 : s + 1].down();
    const NextBlock next[2] = {block_at(then, n / block_rows + (is_last ? 2 : 0)),
                               block_at(then, n / block_rows + (is_last ? 3 : 1))};
    for (std::int64_t r0 = 0; r0 < share.rows; r0 += tile_tokens) {
      const std::int64_t r1 = std::min(r0 + tile_tokens, share.rows);
      down_tile(c, share, inner, inner_stride, r0, r1, blocks, next, tile);
      for (std::int64_t r = r0; r < r1; ++r) {
        const auto row = static_cast<std::size_t>(share.first + r);
        float* sum = sums + c.work.plan.tokens[row] * 2 * block_rows;
        const float* product = tile + (r - r0) * 2 * block_rows;
        const float weight = c.work.plan.weights[row];
        for (std::int64_t l = 0; l < columns; ++l) sum[l] += weight * product[l];
      }
    }
  }
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    float* out = a.out + t * a.width + n;
    const float* sum = sums + t * 2 * block_rows;
    for (std::int64_t l = 0; l < columns; ++l) out[l] = a.add ? out[l] + sum[l] : sum[l];
  }
}

std::int64_t inner_width(const MoePlan& plan) {
  std::int64_t width = 0;
  for (const Share& share : plan.shares) width = std::max(width, share.experts->down.inner);
  return width;
}

}  // namespace

void moe(const MoeArgs& args, const QgemmKernels& kernels, GemmTile router_tile) {
  if (args.tokens == 0) return;
  thread_local Workspace work;
  Call c{args, kernels, work, args.x};
  if (args.norm_weight != nullptr || args.x == args.out) {
    float* normed = work.normed.take<float>(args.tokens * args.width);
    if (args.norm_weight != nullptr) {
      rms_norm({args.x, args.norm_weight, nullptr, normed, args.tokens, args.width, args.eps});
    } else {
      std::copy_n(args.x, args.tokens * args.width, normed);
    }
    c.x = normed;
  }
  route_all(c, router_tile);
  make_plan(args, &work.plan);
  if (c.rounds()) round_input(c);

  const std::int64_t inner_stride = inner_width(work.plan);
  float* inner = nullptr;
  if (c.rounds()) {
    for (const Share& share : work.plan.shares) {
      work.rounded_inner[c.kind(share)].resize(share.experts->down, work.plan.rows());
    }
  } else {
    inner = work.inner.take<float>(work.plan.rows() * inner_stride);
  }
  thread_local std::vector<Item> items;
  make_items(work.plan, &items);
  const Item* list = items.data();
  const auto count = static_cast<std::int64_t>(items.size());
  parallel_walk(count, [&](std::int64_t i) {
    gate_up_item(c, list[i], i + 1 < count ? list + i + 1 : nullptr, inner, inner_stride);
  });
  parallel_walk((args.width + 2 * block_rows - 1) / (2 * block_rows), [&](std::int64_t i) {
    down_columns(c, inner, inner_stride, i * 2 * block_rows);
  });
}

}  // namespace tusi
