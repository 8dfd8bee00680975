// Where to cut a set of values so that the largest are kept that make up a count or a sum: a quickselect, in linear
// time on average. For portable files only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace tusi {

// Kept are the values over the threshold, and the first `ties` (in the order of ids) of those that equal it.
struct Cut {
  float threshold;
  std::int64_t ties;

  static constexpr std::int64_t all = std::numeric_limits<std::int64_t>::max();
  static Cut nothing() { return {-std::numeric_limits<float>::infinity(), all}; }
  bool keeps_all_ties() const { return ties == all; }
};

namespace detail {

// Reorders: those over the pivot, those that equal it, the rest.
struct Parts {
  std::int64_t over, equal;
};

inline Parts partition(float* values, std::int64_t count, float pivot) {
  float* const end = values + count;
  float* const over = std::partition(values, end, [pivot](float x) { return x > pivot; });
  float* const equal = std::partition(over, end, [pivot](float x) { return x >= pivot; });
  return {over - values, equal - over};
}

// `measure(value)`: what a value adds towards the target. The fewest largest values that reach it are kept; all, if
// they do not.
template <class Measure>
Cut cut(float* values, std::int64_t count, double target, const Measure& measure) {
  double reached = 0.0;
  Cut found = Cut::nothing();
  while (count > 0) {
    const float a = values[0], b = values[count / 2], c = values[count - 1];
    const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    const Parts parts = partition(values, count, pivot);
    double over = 0.0;
    for (std::int64_t i = 0; i < parts.over; ++i) over += measure(values[i]);
    if (reached + over >= target) {
      count = parts.over;
      continue;
    }
    reached += over;
    const double one = measure(pivot);
    std::int64_t ties = 0;
    while (ties < parts.equal && reached < target) {
      ++ties;
      reached += one;
    }
    found = {pivot, ties == parts.equal ? Cut::all : ties};
    if (reached >= target) return found;
    values += parts.over + parts.equal;
    count -= parts.over + parts.equal;
  }
  return found;
}

}  // namespace detail

// The `wanted` largest. The values are reordered.
inline Cut cut_by_count(float* values, std::int64_t count, std::int64_t wanted) {
  return detail::cut(values, count, static_cast<double>(wanted), [](float) { return 1.0; });
}

// The fewest largest whose sum is at least `wanted`. The values are reordered.
inline Cut cut_by_sum(float* values, std::int64_t count, double wanted) {
  return detail::cut(values, count, wanted, [](float value) { return static_cast<double>(value); });
}

}  // namespace tusi
