// The feed-forward half of a decoder layer in one call: norm, routers, both pools of experts, shared experts, residual.
//
//   h = norm(x)                                    (or x, if there is no norm)
//   each token goes to the K experts its pool's router chose (text or vision), and to the shared expert:
//   expert(h) = down(silu(gate(h)) * up(h))        gate and up are one matrix: gate's rows, then up's
//   out = (add ? out : 0) + (sum of weight * expert(h), experts in the order of their numbers) + shared(h)
//
// Tokens are sorted by expert, so that each weight is read once and its rows fill the multiplying unit. Three passes of
// the thread pool: rounding of h, gate/up/silu with the rounding of its result, down with the weighted sum (a thread
// owns columns of the output, so the order of the sum is fixed: a token's result does not depend on the others).
#pragma once

#include <cstdint>

#include "linear/linear.h"

namespace tusi {

// E experts of one shape, packed or plain. The arrays of expert e lie e strides on.
struct Experts {
  Matrix gate_up, down;       // of expert 0; gate_up has 2 * padded_inner rows
  std::int64_t count, width;  // E; of x and of the output
  std::int64_t inner;         // columns of gate and up
  std::int64_t padded_inner;  // if packed, rounded up to whole blocks
  std::int64_t gate_up_stride, gate_up_scales, down_stride, down_scales;  // in bytes; scales only if packed
};

struct Router {
  const float* weight;  // [E][D]
  const float* bias;    // [E]
};

struct Pool {
  Router router;
  Experts experts;
};

struct MoeArgs {
  const float* x;                  // [T][D]
  const float* norm_weight;        // [D] or null
  float* out;                      // [T][D]; may be x
  const std::uint8_t* is_vision;   // [T] or null: all are text
  const Pool* text;                // null: a dense MLP, `shared` only
  const Pool* vision;
  const Experts* shared;           // or null
  float* topk_weights;             // [T][K]
  std::int32_t* topk_ids;          // [T][K]
  std::int64_t tokens, width, top_k;
  float eps, norm_min;
  bool add;
  Activations activations;         // of packed experts; plain ones round nothing
};

void moe(const MoeArgs& args, const LinearKernels& kernels);

}  // namespace tusi
