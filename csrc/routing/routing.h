// The router's choice. probs = softmax(logits[t]); the K experts with the largest probs + bias, best first (of equals
// the lowest id); weights = probs of the chosen / max(their sum, norm_min): the bias chooses but does not weigh. Where a
// score is NaN: the untaken expert of the largest score, unless the first untaken one's is NaN: then that.
// The same bits on every instruction set. Reference: topk_softmax in src/tusi/kernels/reference.py. Types and
// declarations only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

struct RoutingArgs {
  const float* logits;              // [T][E]
  const float* bias;                // [E]
  float* weights;                   // [T][K]
  std::int32_t* ids;                // [T][K]
  std::int64_t tokens, experts, k;  // 1 <= k <= experts
  float norm_min;
};

// Kernels may read scores up to a multiple of this many; behind the last expert stands NaN.
constexpr std::int64_t score_padding = 8;

// One token.
struct RoutingKernels {
  // The largest of the logits; anything at all if one is NaN.
  float (*largest)(const float* logits, std::int64_t experts);
  // ids[0..k) of the largest scores, best first; none of the scores is NaN. Writes over them.
  void (*choose)(float* scores, std::int64_t experts, std::int64_t k, std::int32_t* ids);
};

void topk_softmax(const RoutingArgs& args, const RoutingKernels& kernels);

// With the kernels of active_isa(), for callers whose own kernels are of other operations.
void topk_softmax(const RoutingArgs& args);

namespace generic {
extern const RoutingKernels routing_kernels;
}
namespace avx2 {
extern const RoutingKernels routing_kernels;
}

}  // namespace tusi
