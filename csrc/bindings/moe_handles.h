// Experts and pools are objects: their many arrays are checked once, when a model is loaded, not at every layer's call.
#pragma once

#include "bindings/checks.h"
#include "moe/moe.h"

namespace tusi::bindings {

// Keeps its arrays alive. Stacked arrays have a leading axis of experts.
struct ExpertsHandle {
  Experts experts;
  nb::object arrays;
};

struct PoolHandle {
  Pool pool;
  nb::object arrays, experts;

  PoolHandle(const In& weight_ED, const In& bias_E, nb::object handle, nb::object keep);
};

// Each token can go to so many of the pool's experts.
void check_top_k(const Pool& pool, std::int64_t top_k);

// The experts take and give vectors of this width, that of x_TD.
void check_width(const char* what, const Experts& experts, std::int64_t width);

}  // namespace tusi::bindings
