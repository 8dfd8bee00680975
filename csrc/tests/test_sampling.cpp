// The kernels of sampling against their definitions, on rows in arrays exactly as long as they must be, on every
// instruction set; and the cut.
#include <algorithm>
#include <functional>
#include <numeric>

#include "check.h"
#include "sampling/cut.h"
#include "sampling/dispatch.h"

namespace tusi {
namespace {

constexpr std::int64_t lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000};

TEST(sampling_extremes_are_the_largest_and_smallest) {
  for (const Isa isa : test::supported_isas()) {
    for (const std::int64_t length : lengths) {
      const std::vector<float> x = test::normal(static_cast<std::size_t>(length), 3);
      const std::int64_t blocks = (length + sampling_block - 1) / sampling_block;
      test::Guarded largest(static_cast<std::size_t>(blocks));
      const Extremes found = select_sampling_kernels(isa).extremes(x.data(), length, largest.data());
      CHECK(found.largest == *std::max_element(x.begin(), x.end()));
      CHECK(found.smallest == *std::min_element(x.begin(), x.end()));
      for (std::int64_t b = 0; b < blocks; ++b) {
        const auto begin = x.begin() + b * sampling_block;
        CHECK(largest.data()[b] == *std::max_element(begin, std::min(begin + sampling_block, x.end())));
      }
      CHECK(largest.intact());
    }
  }
}

TEST(sampling_weights_are_powers_of_what_is_kept) {
  for (const Isa isa : test::supported_isas()) {
    for (const std::int64_t length : lengths) {
      const std::vector<float> x = test::normal(static_cast<std::size_t>(length), 4);
      const float largest = *std::max_element(x.begin(), x.end());
      test::Guarded out(x.size());
      select_sampling_kernels(isa).weights(x.data(), out.data(), length, largest, 0.5F, -0.8F, -4.0F);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const float q = (x[i] - largest) / 0.5F;
        const float expected = x[i] >= -0.8F && q >= -4.0F ? std::exp(q) : 0.0F;
        CHECK(std::fabs(out.data()[i] - expected) <= 4e-7F * expected);
      }
      CHECK(out.intact());
    }
  }
}

TEST(sampling_sums_what_is_at_least_the_threshold) {
  for (const Isa isa : test::supported_isas()) {
    for (const std::int64_t length : lengths) {
      const std::vector<float> x = test::normal(static_cast<std::size_t>(length), 5);
      const float threshold = x[static_cast<std::size_t>(length / 2)];
      double expected = 0.0;
      for (const float value : x) expected += value >= threshold ? static_cast<double>(value) : 0.0;
      CHECK(std::fabs(select_sampling_kernels(isa).sum_at_least(x.data(), length, threshold) - expected) < 1e-9);
    }
  }
}

TEST(sampling_cuts_where_a_sorted_row_would_be_cut) {
  for (const unsigned seed : {1U, 2U, 3U}) {
    for (const std::int64_t length : lengths) {
      std::vector<int> values = test::integers<int>(static_cast<std::size_t>(length), 1, 9, seed);
      std::vector<float> sorted(values.begin(), values.end());
      std::sort(sorted.begin(), sorted.end(), std::greater<float>());
      const float all = std::accumulate(sorted.begin(), sorted.end(), 0.0F);
      for (const float share : {0.01F, 0.3F, 0.5F, 0.99F, 1.0F}) {
        std::vector<float> shuffled(values.begin(), values.end());
        const double wanted = static_cast<double>(share * all);
        const Cut cut = cut_by_sum(shuffled.data(), length, wanted);
        std::int64_t kept = 0, expected = 0;
        double sum = 0.0;
        while (expected < length && sum < wanted) sum += static_cast<double>(sorted[static_cast<std::size_t>(expected++)]);
        std::int64_t ties = cut.ties;
        for (const int value : values) {
          const float v = static_cast<float>(value);
          kept += v > cut.threshold || (v == cut.threshold && ties-- > 0) ? 1 : 0;
        }
        CHECK(kept == expected);
      }
    }
  }
}

}  // namespace
}  // namespace tusi
