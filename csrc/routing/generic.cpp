#include <limits>

#include "routing/routing.h"

namespace tusi::generic {
namespace {

float largest(const float* logits, std::int64_t experts) {
  float best = logits[0];
  for (std::int64_t e = 1; e < experts; ++e) best = logits[e] > best ? logits[e] : best;
  return best;
}

// A taken one becomes NaN, which is larger than nothing; -inf is a score like others.
void choose(float* scores, std::int64_t experts, std::int64_t k, std::int32_t* ids) {
  for (std::int64_t j = 0; j < k; ++j) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < experts; ++e) {
      if (scores[e] != scores[e]) continue;
      if (best < 0 || scores[e] > scores[best]) best = e;
    }
    ids[j] = static_cast<std::int32_t>(best);
    scores[best] = std::numeric_limits<float>::quiet_NaN();
  }
}

}  // namespace

const RoutingKernels routing_kernels = {largest, choose};

}  // namespace tusi::generic
