// Rows of float activations as products take them. Types only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

// Row r of a product reads x + row * stride, where row is index[r], or r if there is no index.
struct FloatRows {
  const float* x;
  std::int64_t stride;
  const std::int32_t* index;
};

}  // namespace tusi
