#include <cmath>
#include <limits>

#include "sampling/sampling.h"

namespace tusi::generic {
namespace {

Extremes extremes(const float* x, std::int64_t count, float* block_largest) {
  Extremes found{x[0], x[0]};
  bool has_nan = false;
  for (std::int64_t i = 0; i < count; ++i) {
    has_nan |= std::isnan(x[i]);
    found.largest = x[i] > found.largest ? x[i] : found.largest;
    found.smallest = x[i] < found.smallest ? x[i] : found.smallest;
    float& of_block = block_largest[i / sampling_block];
    of_block = i % sampling_block == 0 || x[i] > of_block ? x[i] : of_block;
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return has_nan ? Extremes{nan, nan} : found;
}

void weights(const float* x, float* out, std::int64_t count, float largest, float temperature, float least,
             float lowest) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float q = (x[i] - largest) / temperature;
    out[i] = x[i] >= least && q >= lowest ? std::exp(q) : 0.0F;
  }
}

double sum_at_least(const float* x, std::int64_t count, float threshold) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < count; ++i) sum += x[i] >= threshold ? static_cast<double>(x[i]) : 0.0;
  return sum;
}

}  // namespace

const SamplingKernels sampling_kernels = {extremes, weights, sum_at_least};

}  // namespace tusi::generic
