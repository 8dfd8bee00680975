// What the passes of one call share, and the seam between them and the formats of weights: an overload for packed
// integers (packed.cpp) and one for plain floats (plain.cpp) of each step that touches a matrix.
#pragma once

#include "core/scratch.h"
#include "moe/moe.h"
#include "moe/plan.h"

namespace tusi {

constexpr std::int64_t tile_tokens = 96;                  // rows whose intermediate values a thread holds at a time
constexpr std::int64_t output_columns = 2 * block_rows;   // of the output that a thread makes at a time

// What one call needs beside its arguments; kept by the caller's thread from call to call.
struct Workspace {
  Scratch normed, router_logits, other_weights, other_ids, inner;
  RoundedBuffer rounded[3], rounded_inner[3];  // text pool, vision pool, shared: each by its own groups
  MoePlan plan;
};

struct Call {
  const MoeArgs& a;
  const LinearKernels& kernels;
  Workspace& work;
  const float* x;  // after the norm
  float* inner;    // [rows of the plan][inner_stride]: the intermediate values of experts that do not round them
  std::int64_t inner_stride;

  bool rounds(const Matrix& w) const {
    return std::holds_alternative<PackedMatrix>(w) && a.activations == Activations::int8;
  }
  // 0, 1, 2: text, vision, shared.
  int kind(const Share& share) const {
    if (share.experts == a.shared) return 2;
    return a.vision != nullptr && share.experts == &a.vision->experts ? 1 : 0;
  }
  const std::int32_t* tokens_of(const Share& share) const { return work.plan.tokens.data() + share.first; }
};

// A piece of one expert's work: columns begin..end of its intermediate vector.
struct Item {
  const Share* share;
  std::int64_t begin, end;
};

// How many of these columns are best made together.
std::int64_t panel_columns(const Experts& experts, const PackedMatrix& down);
std::int64_t panel_columns(const Experts& experts, const PlainMatrix& down);

// The item's columns of silu(gate) * up for rows r0..r1 of its share, into gate [r1 - r0][end - begin]; `up` is as large.
// following: what the thread does next, or null.
void gate_up_tile(const Call& c, const Item& item, const PackedMatrix& w, std::int64_t r0, std::int64_t r1,
                  const Item* following, float* gate, float* up);
void gate_up_tile(const Call& c, const Item& item, const PlainMatrix& w, std::int64_t r0, std::int64_t r1,
                  const Item* following, float* gate, float* up);

// Columns n..n + columns of the down product of a share's rows r0..r1, into tile [r1 - r0][output_columns].
// following, next_column: whose columns the thread makes next, and which.
struct DownItem {
  const Share *share, *following;
  std::int64_t n, columns, next_column;
};
void down_tile(const Call& c, const DownItem& item, const PackedMatrix& w, std::int64_t r0, std::int64_t r1, float* tile);
void down_tile(const Call& c, const DownItem& item, const PlainMatrix& w, std::int64_t r0, std::int64_t r1, float* tile);

// Rounds the input once for each way of grouping it that occurs among the call's packed experts.
void round_input(const Call& c);

// Keeps the item's intermediate values of row r of its share, rounded for `down`.
void round_inner(const Call& c, const Item& item, const PackedMatrix& down, std::int64_t r, const float* values);

}  // namespace tusi
