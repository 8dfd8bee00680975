// What the passes of one call share, and the seam between them and the formats of weights: each step that touches a
// matrix has an overload for packed integers (packed.cpp) and one for plain floats (plain.cpp).
#pragma once

#include "core/scratch.h"
#include "moe/moe.h"
#include "moe/plan.h"

namespace tusi {

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
};

// A piece of one expert's work: columns begin..end of its intermediate vector.
struct Item {
  const Share* share;
  std::int64_t begin, end;
};

// Rows of a share as both kinds of kernel take them; one is in use.
struct Rows {
  RoundedRows rounded;
  FloatRows floats;
};

// A rectangle of a product: rows r0..r1 by rows begin..end of w, into tile [r1 - r0][width]. `next`: what is read after it.
struct Rectangle {
  std::int64_t r0, r1, begin, end;
  NextBlock next;
  float* tile;
  std::int64_t width;
};

void multiply(const Call& c, const PackedMatrix& w, const Rows& x, const Rectangle& to);
void multiply(const Call& c, const PlainMatrix& w, const Rows& x, const Rectangle& to);

// gate = silu(gate) * up
void silu_and_mul(const Call& c, const PackedMatrix& w, float* gate, const float* up, std::int64_t count);
void silu_and_mul(const Call& c, const PlainMatrix& w, float* gate, const float* up, std::int64_t count);

// How many columns of the intermediate vector are best made together, given `down`.
std::int64_t panel_columns(const Experts& experts, const PackedMatrix& down);
std::int64_t panel_columns(const Experts& experts, const PlainMatrix& down);

// Where row `row` (the first of a block) lies; nulls beyond the last, and for plain matrices, where nobody asks ahead.
NextBlock next_at(const Matrix& w, std::int64_t row);

// Packed experts alone, where the call rounds activations. The input, once for each way of grouping it that occurs:
void round_input(const Call& c);
// and the item's intermediate values of row r of its share, for `down`.
void round_inner(const Call& c, const Item& item, const PackedMatrix& down, std::int64_t r, const float* values);

}  // namespace tusi
