// The rows are split over the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <vector>

#include "core/thread_pool.h"
#include "sampling/cut.h"
#include "sampling/dispatch.h"
#include "sampling/sampling.h"

namespace tusi {
namespace {

constexpr std::int64_t block = sampling_block;
constexpr int max_halvings = 16;
constexpr std::int64_t worth_a_thread = 64 * 1024;  // logits
constexpr float infinity = std::numeric_limits<float>::infinity();

std::int64_t size_of(std::int64_t begin, std::int64_t vocab) { return std::min(block, vocab - begin); }

// What a row needs to be worked on. One a thread, kept: memory of this size is slow to get anew for each row.
struct Workspace {
  std::vector<float> largest, weights, candidates;
  std::vector<double> sums;
};

std::size_t blocks_of(std::int64_t vocab) { return static_cast<std::size_t>((vocab + block - 1) / block); }

// The first place of a value in a row, by the block that it must be the largest of.
std::int64_t find_largest(const float* logits, const std::vector<float>& largest, float value) {
  const auto found = std::find(largest.begin(), largest.end(), value);
  std::int64_t at = (found - largest.begin()) * block;
  while (logits[at] != value) ++at;
  return at;
}

// Which of the logits are the top_k: those over a threshold and some that equal it.
Cut cut_top_k(const float* logits, std::int64_t vocab, std::int64_t top_k, Workspace& space) {
  if (top_k <= 0 || top_k >= vocab) return Cut::nothing();
  // As many blocks as are wanted reach this bound, so it is reached by as many logits.
  float bound = -infinity;
  if (top_k <= static_cast<std::int64_t>(space.largest.size())) {
    space.candidates = space.largest;
    std::nth_element(space.candidates.begin(), space.candidates.begin() + (top_k - 1), space.candidates.end(),
                     std::greater<float>());
    bound = space.candidates[static_cast<std::size_t>(top_k - 1)];
  }
  space.candidates.clear();
  for (std::size_t b = 0; b < space.largest.size(); ++b) {
    if (space.largest[b] < bound) continue;
    const float* begin = logits + static_cast<std::int64_t>(b) * block;
    std::copy_if(begin, begin + size_of(begin - logits, vocab), std::back_inserter(space.candidates),
                 [bound](float x) { return x >= bound; });
  }
  return cut_by_count(space.candidates.data(), static_cast<std::int64_t>(space.candidates.size()), top_k);
}

// A range of weights in which the cut for `wanted` lies, narrowed by halves over the floats' bits (whose order is that
// of positive values), and the sum of what is over it.
struct Range {
  float low, high;  // low <= threshold < high
  double over;
};

float halfway(float low, float high) {
  std::uint32_t low_bits, high_bits;
  std::memcpy(&low_bits, &low, sizeof low);
  std::memcpy(&high_bits, &high, sizeof high);
  const std::uint32_t middle = low_bits + (high_bits - low_bits) / 2;
  float value;
  std::memcpy(&value, &middle, sizeof value);
  return value;
}

Range narrow(std::int64_t vocab, double wanted, float bound, const Workspace& space, const SamplingKernels& kernels) {
  Range range{std::max(bound, std::numeric_limits<float>::min()), 2.0F, 0.0};  // no weight is more than 1
  for (int i = 0; i < max_halvings; ++i) {
    const float middle = halfway(range.low, range.high);
    if (middle <= range.low) break;
    const double sum = kernels.sum_at_least(space.weights.data(), vocab, middle);
    if (sum >= wanted) {
      range.low = middle;
    } else {
      range.high = middle;
      range.over = sum;
    }
  }
  return range;
}

// Which of the weights are the fewest that have top_p of their sum.
Cut cut_top_p(std::int64_t vocab, double top_p, double total, Workspace& space, const SamplingKernels& kernels) {
  // Weights below this have less than 1 - top_p together even if they are all the others.
  const float bound = static_cast<float>((1.0 - top_p) * total / static_cast<double>(vocab + 1));
  const double wanted = top_p * total;
  const Range range = narrow(vocab, wanted, bound, space, kernels);
  space.candidates.clear();
  std::copy_if(space.weights.begin(), space.weights.begin() + vocab, std::back_inserter(space.candidates),
               [&range](float w) { return w >= range.low && w < range.high; });
  return cut_by_sum(space.candidates.data(), static_cast<std::int64_t>(space.candidates.size()), wanted - range.over);
}

// Zero what equals the threshold of a cut but came too late.
void drop_surplus(const float* values, std::int64_t vocab, const Cut& cut, float* weights) {
  if (cut.keeps_all_ties()) return;
  std::int64_t left = cut.ties;
  for (std::int64_t i = 0; i < vocab; ++i) {
    if (values[i] == cut.threshold && left-- <= 0) weights[i] = 0.0F;
  }
}

double sum_blocks(std::int64_t vocab, float threshold, Workspace& space, const SamplingKernels& kernels) {
  space.sums.clear();
  double total = 0.0;
  for (std::int64_t begin = 0; begin < vocab; begin += block) {
    space.sums.push_back(kernels.sum_at_least(space.weights.data() + begin, size_of(begin, vocab), threshold));
    total += space.sums.back();
  }
  return total;
}

// The first id of a block at which the running sum of what is kept is more than `target`, or its last kept one.
std::int64_t invert_block(std::int64_t begin, std::int64_t vocab, float threshold, double target,
                          const std::vector<float>& weights) {
  double sum = 0.0;
  std::int64_t last = -1;
  for (std::int64_t i = begin; i < begin + size_of(begin, vocab); ++i) {
    const float weight = weights[static_cast<std::size_t>(i)];
    if (weight <= 0.0F || weight < threshold) continue;
    last = i;
    sum += static_cast<double>(weight);
    if (sum > target) break;
  }
  return last;
}

// The same over the row. The last kept id of all if rounding lets none reach the target.
std::int64_t invert(std::int64_t vocab, float threshold, double target, const Workspace& space) {
  double before = 0.0;
  std::int64_t last_begin = -1;
  for (std::size_t b = 0; b < space.sums.size(); ++b) {
    if (space.sums[b] == 0.0) continue;
    last_begin = static_cast<std::int64_t>(b) * block;
    if (before + space.sums[b] > target) {
      return invert_block(last_begin, vocab, threshold, target - before, space.weights);
    }
    before += space.sums[b];
  }
  return invert_block(last_begin, vocab, threshold, std::numeric_limits<double>::infinity(), space.weights);
}

std::int64_t draw_row(const float* logits, std::int64_t vocab, const DrawParams& params, bool must_be_finite,
                      Workspace& space, const SamplingKernels& kernels) {
  space.largest.resize(blocks_of(vocab));
  const Extremes all = kernels.extremes(logits, vocab, space.largest.data());
  if (!std::isfinite(all.largest) || (must_be_finite && !std::isfinite(all.smallest))) return -1;
  space.weights.resize(static_cast<std::size_t>(vocab));
  const Cut by_k = cut_top_k(logits, vocab, params.top_k, space);
  kernels.weights(logits, space.weights.data(), vocab, all.largest, params.temperature, by_k.threshold,
                  params.log_min_p);
  drop_surplus(logits, vocab, by_k, space.weights.data());
  double total = sum_blocks(vocab, 0.0F, space, kernels);
  float threshold = 0.0F;
  if (params.top_p < 1.0) {
    const Cut by_p = cut_top_p(vocab, params.top_p, total, space, kernels);
    drop_surplus(space.weights.data(), vocab, by_p, space.weights.data());
    threshold = by_p.threshold;
    total = sum_blocks(vocab, threshold, space, kernels);
  }
  return invert(vocab, threshold, uniform_of(params.key, params.index) * total, space);
}

}  // namespace

const SamplingKernels& select_sampling_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa == Isa::avx512) return avx512::sampling_kernels;
  if (isa == Isa::avx2) return avx2::sampling_kernels;
#endif
  (void)isa;
  return generic::sampling_kernels;
}

void argmax_rows(const float* logits, std::int64_t rows, std::int64_t vocab, std::int64_t* ids,
                 const SamplingKernels& kernels) {
  parallel_if(rows > 1 && rows * vocab >= worth_a_thread, rows, [&](std::int64_t row) {
    thread_local Workspace space;
    const float* values = logits + row * vocab;
    space.largest.resize(blocks_of(vocab));
    const Extremes all = kernels.extremes(values, vocab, space.largest.data());
    const bool is_finite = std::isfinite(all.largest) && std::isfinite(all.smallest);
    ids[row] = is_finite ? find_largest(values, space.largest, all.largest) : -1;
  });
}

void draw_rows(const float* logits, std::int64_t vocab, const std::int64_t* row_ids, const DrawParams* params,
               std::int64_t draws, bool must_be_finite, std::int64_t* ids, const SamplingKernels& kernels) {
  parallel_if(draws > 1 && draws * vocab >= worth_a_thread, draws, [&](std::int64_t n) {
    thread_local Workspace space;
    ids[n] = draw_row(logits + row_ids[n] * vocab, vocab, params[n], must_be_finite, space, kernels);
  });
}

}  // namespace tusi
