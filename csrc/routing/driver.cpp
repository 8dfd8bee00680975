// Splits tokens over the threads. Powers are the C library's on every instruction set, so that all give the same bits.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/scratch.h"
#include "core/thread_pool.h"
#include "routing/dispatch.h"
#include "routing/routing.h"

namespace tusi {
namespace {

constexpr std::int64_t grain_elements = 4 * 1024;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

void softmax(const float* logits, std::int64_t count, const RoutingKernels& kernels, float* probs) {
  const float largest = kernels.largest(logits, count);
  float sum = 0.0F;
  for (std::int64_t e = 0; e < count; ++e) sum += probs[e] = std::exp(logits[e] - largest);
  for (std::int64_t e = 0; e < count; ++e) probs[e] /= sum;
}

// False if one of them is NaN.
bool add_bias(const float* probs, const float* bias, std::int64_t count, float* scores) {
  int unordered = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    const float score = probs[e] + bias[e];
    scores[e] = score;
    unordered |= score != score ? 1 : 0;
  }
  return unordered == 0;
}

// Any scores. An expert is taken if it is among the ids before; k is small, and this is for damaged values only.
void choose_with_nan(const float* scores, std::int64_t experts, std::int64_t k, std::int32_t* ids) {
  for (std::int64_t j = 0; j < k; ++j) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < experts; ++e) {
      if (std::find(ids, ids + j, static_cast<std::int32_t>(e)) != ids + j) continue;
      if (best < 0 || scores[e] > scores[best]) best = e;
    }
    ids[j] = static_cast<std::int32_t>(best);
  }
}

void route(const RoutingArgs& a, const RoutingKernels& kernels, std::int64_t t, float* probs, float* scores) {
  float* weights = a.weights + t * a.k;
  std::int32_t* ids = a.ids + t * a.k;
  softmax(a.logits + t * a.experts, a.experts, kernels, probs);
  if (add_bias(probs, a.bias, a.experts, scores)) {
    kernels.choose(scores, a.experts, a.k, ids);
  } else {
    choose_with_nan(scores, a.experts, a.k, ids);
  }
  float sum = 0.0F;
  for (std::int64_t j = 0; j < a.k; ++j) sum += weights[j] = probs[ids[j]];
  const float divisor = sum > a.norm_min ? sum : a.norm_min;
  for (std::int64_t j = 0; j < a.k; ++j) weights[j] /= divisor;
}

}  // namespace

const RoutingKernels& select_routing_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa != Isa::generic) return avx2::routing_kernels;
#endif
  (void)isa;
  return generic::routing_kernels;
}

void topk_softmax(const RoutingArgs& a, const RoutingKernels& kernels) {
  const std::int64_t padded = (a.experts + score_padding - 1) / score_padding * score_padding;
  parallel_ranges(a.tokens, grain_elements / (a.experts * a.k + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local Scratch scratch;
    float* scores = scratch.take<float>(2 * padded);
    float* probs = scores + padded;
    std::fill(scores + a.experts, scores + padded, nan);
    for (std::int64_t t = begin; t < end; ++t) route(a, kernels, t, probs, scores);
  });
}

void topk_softmax(const RoutingArgs& args) { topk_softmax(args, select_routing_kernels(active_isa())); }

}  // namespace tusi
