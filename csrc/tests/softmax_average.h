// What one query's attention must give, in double precision.
#pragma once

#include <algorithm>

#include "check.h"

namespace tusi::test {

struct AttentionRow {
  const float* q;
  std::vector<const float*> keys, values;  // what the query sees
};

inline std::vector<double> softmax_average(const AttentionRow& row, std::int64_t head_dim, double scale) {
  std::vector<double> scores;
  double largest = -INFINITY, sum = 0.0;
  for (const float* key : row.keys) {
    double dot = 0.0;
    for (std::int64_t h = 0; h < head_dim; ++h) dot += static_cast<double>(row.q[h]) * key[h];
    scores.push_back(dot * scale);
    largest = std::max(largest, scores.back());
  }
  std::vector<double> out(static_cast<std::size_t>(head_dim), 0.0);
  for (std::size_t j = 0; j < scores.size(); ++j) {
    const double weight = std::exp(scores[j] - largest);
    sum += weight;
    for (std::size_t h = 0; h < out.size(); ++h) out[h] += weight * row.values[j][h];
  }
  for (double& value : out) value /= sum;
  return out;
}

inline void check_row(const AttentionRow& row, const float* out, std::int64_t head_dim, double scale, double absolute,
                      double relative) {
  const std::vector<double> exact = softmax_average(row, head_dim, scale);
  for (std::size_t h = 0; h < exact.size(); ++h) {
    CHECK(std::fabs(out[h] - exact[h]) <= absolute + relative * std::fabs(exact[h]));
  }
}

}  // namespace tusi::test
