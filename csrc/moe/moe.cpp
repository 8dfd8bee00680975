#include "moe/moe.h"

#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
#include "gemm/driver.h"
#include "moe/call.h"
#include "norm/norm.h"
#include "routing/routing.h"

namespace tusi {
namespace {

// How much a thread takes at a time, at most. A single token waits for memory alone, and each piece begins with a wait:
// it takes as much as parallel_walk gives. Of the output many tokens take less, as they need room for their sums.
constexpr std::int64_t most_items = 4, most_pairs = 8;
constexpr std::int64_t tile_tokens = 96;  // rows whose intermediate values a thread holds at a time

void route(const Call& c, const Pool& pool, float* weights, std::int32_t* ids) {
  const MoeArgs& a = c.a;
  const std::int64_t experts = pool.experts.count;
  float* logits = c.work.router_logits.take<float>(a.tokens * experts);
  const PlainMatrix router{pool.router.weight, experts, a.width, WeightFormat::f32};
  gemm({router, c.x, nullptr, nullptr, logits, a.tokens, 0.0F, false}, c.kernels.f32);
  topk_softmax({logits, pool.router.bias, weights, ids, a.tokens, experts, a.top_k, a.norm_min});
}

// Both routers see all tokens, which costs little; each token takes the answer of its own.
void route_all(const Call& c) {
  const MoeArgs& a = c.a;
  if (a.text == nullptr) return;
  route(c, *a.text, a.topk_weights, a.topk_ids);
  if (a.is_vision == nullptr) return;
  float* weights = c.work.other_weights.take<float>(a.tokens * a.top_k);
  std::int32_t* ids = c.work.other_ids.take<std::int32_t>(a.tokens * a.top_k);
  route(c, *a.vision, weights, ids);
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    if (a.is_vision[t] == 0) continue;
    std::copy_n(weights + t * a.top_k, a.top_k, a.topk_weights + t * a.top_k);
    std::copy_n(ids + t * a.top_k, a.top_k, a.topk_ids + t * a.top_k);
  }
}

// Columns of all experts, one behind the other, in the smallest pieces that `down` allows.
void make_items(const MoePlan& plan, std::vector<Item>* items) {
  items->clear();
  for (const Share& share : plan.shares) {
    const Experts& experts = *share.experts;
    const std::int64_t width = experts.padded_inner;
    const std::int64_t step = std::visit([&](const auto& down) { return panel_columns(experts, down); }, experts.down);
    for (std::int64_t n = 0; n < width; n += step) items->push_back({&share, n, std::min(n + step, width)});
  }
}

// The item's columns of silu(gate) * up for rows r0..r1 of its share, into gate [r1 - r0][columns].
void gate_up_tile(const Call& c, const Item& item, std::int64_t r0, std::int64_t r1, const Item* following, float* gate,
                  float* up) {
  const Share& share = *item.share;
  const Matrix matrix = share.gate_up();
  const std::int32_t* index = c.work.plan.tokens.data() + share.first;
  Rows x{{}, {c.x, c.a.width, index}};
  if (c.rounds(matrix)) x.rounded = c.work.rounded[c.kind(share)].rows;
  x.rounded.index = index;
  const std::int64_t width = item.end - item.begin, ups = share.experts->padded_inner;
  NextBlock next{};
  if (following != nullptr) next = next_at(following->share->gate_up(), following->begin);
  const NextBlock first_up = next_at(matrix, ups + item.begin);
  std::visit(
      [&](const auto& w) {
        multiply(c, w, x, {r0, r1, item.begin, item.end, first_up, gate, width});
        multiply(c, w, x, {r0, r1, ups + item.begin, ups + item.end, next, up, width});
        silu_and_mul(c, w, gate, up, (r1 - r0) * width);
      },
      matrix);
}

// following: what the thread does next, or null.
void gate_up_item(const Call& c, const Item& item, const Item* following) {
  const Share& share = *item.share;
  const PackedMatrix* rounding = c.rounds(share.experts->down) ? &std::get<PackedMatrix>(share.experts->down) : nullptr;
  const std::int64_t width = item.end - item.begin, used = std::min(item.end, share.experts->inner) - item.begin;
  thread_local Scratch scratch;
  float* gate = scratch.take<float>(2 * tile_tokens * width);
  float* up = gate + tile_tokens * width;
  for (std::int64_t r0 = 0; r0 < share.rows; r0 += tile_tokens) {
    const std::int64_t r1 = std::min(r0 + tile_tokens, share.rows);
    gate_up_tile(c, item, r0, r1, following, gate, up);
    for (std::int64_t r = r0; r < r1; ++r) {
      const float* values = gate + (r - r0) * width;
      if (rounding != nullptr) {
        round_inner(c, item, *rounding, r, values);
      } else {
        std::copy_n(values, used, c.inner + (share.first + r) * c.inner_stride + item.begin);
      }
    }
  }
}

// The intermediate rows of a share.
Rows inner_rows(const Call& c, const Share& share) {
  const Matrix& down = share.experts->down;
  if (!c.rounds(down)) return {{}, {c.inner + share.first * c.inner_stride, c.inner_stride, nullptr}};
  const PackedMatrix& w = std::get<PackedMatrix>(down);
  RoundedRows x = c.work.rounded_inner[c.kind(share)].rows;
  x.codes += share.first * w.chunks * chunk_columns;
  x.scales += share.first * w.groups;
  x.offsets += share.first * w.groups;
  return {x, {}};
}

// Columns begin..end of the output, for all tokens and experts; begin is a multiple of block_rows.
void down_columns(const Call& c, std::int64_t begin, std::int64_t end) {
  const MoeArgs& a = c.a;
  const std::int64_t columns = end - begin, width = (columns + block_rows - 1) / block_rows * block_rows;
  thread_local Scratch scratch;
  float* sums = scratch.take<float>((a.tokens + tile_tokens) * width);
  float* tile = sums + a.tokens * width;
  std::memset(sums, 0, static_cast<std::size_t>(a.tokens * width) * sizeof(float));
  const std::vector<Share>& shares = c.work.plan.shares;
  for (std::size_t s = 0; s < shares.size(); ++s) {
    const Share& share = shares[s];
    const Rows x = inner_rows(c, share);
    const Matrix matrix = share.down();
    // After the last expert come the first one's next columns.
    const NextBlock next = s + 1 < shares.size() ? next_at(shares[s + 1].down(), begin) : next_at(shares[0].down(), end);
    for (std::int64_t r0 = 0; r0 < share.rows; r0 += tile_tokens) {
      const std::int64_t r1 = std::min(r0 + tile_tokens, share.rows);
      std::visit([&](const auto& w) { multiply(c, w, x, {r0, r1, begin, end, next, tile, width}); }, matrix);
      for (std::int64_t r = r0; r < r1; ++r) {
        const auto row = static_cast<std::size_t>(share.first + r);
        float* sum = sums + c.work.plan.tokens[row] * width;
        const float* product = tile + (r - r0) * width;
        const float weight = c.work.plan.weights[row];
        for (std::int64_t l = 0; l < columns; ++l) sum[l] += weight * product[l];
      }
    }
  }
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    float* out = a.out + t * a.width + begin;
    const float* sum = sums + t * width;
    for (std::int64_t l = 0; l < columns; ++l) out[l] = a.add ? out[l] + sum[l] : sum[l];
  }
}

// Items begin..end of the list, those of one expert at once.
void gate_up_items(const Call& c, const std::vector<Item>& items, std::int64_t begin, std::int64_t end) {
  const auto count = static_cast<std::int64_t>(items.size());
  for (std::int64_t next = begin; begin < end; begin = next) {
    Item whole = items[static_cast<std::size_t>(begin)];
    for (; next < end && items[static_cast<std::size_t>(next)].share == whole.share; ++next) {
      whole.end = items[static_cast<std::size_t>(next)].end;
    }
    gate_up_item(c, whole, next < count ? &items[static_cast<std::size_t>(next)] : nullptr);
  }
}

// Room for the intermediate values: rounded by kind, or as they are.
void make_room(Call* c) {
  c->inner_stride = 0;
  for (const Share& share : c->work.plan.shares) {
    const Matrix& down = share.experts->down;
    if (c->rounds(down)) {
      c->work.rounded_inner[c->kind(share)].resize(std::get<PackedMatrix>(down), c->work.plan.rows());
    } else {
      c->inner_stride = std::max(c->inner_stride, share.experts->inner);
    }
  }
  if (c->inner_stride > 0) c->inner = c->work.inner.take<float>(c->work.plan.rows() * c->inner_stride);
}

}  // namespace

void moe(const MoeArgs& args, const LinearKernels& kernels) {
  if (args.tokens == 0) return;
  thread_local Workspace work;
  Call c{args, kernels, work, args.x, nullptr, 0};
  if (args.norm_weight != nullptr || args.x == args.out) {
    float* normed = work.normed.take<float>(args.tokens * args.width);
    if (args.norm_weight != nullptr) {
      rms_norm({args.x, args.norm_weight, nullptr, normed, args.tokens, args.width, args.eps});
    } else {
      std::copy_n(args.x, args.tokens * args.width, normed);
    }
    c.x = normed;
  }
  route_all(c);
  make_plan(args, &work.plan);
  round_input(c);
  make_room(&c);
  thread_local std::vector<Item> own_items;
  std::vector<Item>& items = own_items;  // of this thread, on every thread
  make_items(work.plan, &items);
  const auto count = static_cast<std::int64_t>(items.size());
  parallel_walk(count, args.tokens == 1 ? count : most_items,
                [&](std::int64_t begin, std::int64_t end) { gate_up_items(c, items, begin, end); });
  constexpr std::int64_t pair = 2 * block_rows;
  const std::int64_t pairs = (args.width + pair - 1) / pair;
  parallel_walk(pairs, args.tokens == 1 ? pairs : args.tokens <= few_tokens ? most_pairs : 1,
                [&](std::int64_t begin, std::int64_t end) {
                  down_columns(c, begin * pair, std::min(end * pair, args.width));
                });
}

}  // namespace tusi
