#include "ceilings/ceilings.h"
#include "check.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

constexpr Unit units[] = {Unit::int8, Unit::bf16, Unit::fp32};

TEST(every_read_loop_reads_every_word_once) {
  alignas(64) static std::uint64_t words[32 * 37];
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < 32 * 37; ++i) sum += words[i] = i * i * 0x9E3779B97F4A7C15ULL;
  for (const Isa isa : test::supported_isas()) {
    const ReadLoop loop = select_read_loop(isa);
    CHECK(loop(reinterpret_cast<const unsigned char*>(words), sizeof(words)) == sum);
    CHECK(loop(reinterpret_cast<const unsigned char*>(words), 0) == 0);
  }
}

TEST(rates_are_positive_and_as_many_as_asked_for) {
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    for (const Isa isa : test::supported_isas()) {
      const std::vector<double> read = read_bandwidths(5 << 20, 4, isa);
      CHECK(read.size() == 4);
      for (const double rate : read) CHECK(rate > 0.0);
      for (const Unit unit : units) {
        const std::vector<double> peaks = unit_peaks(unit, 3, 1e-4, isa);
        CHECK(peaks.size() == (select_peak_loop(unit, isa).run == nullptr ? 0 : 3));
        for (const double rate : peaks) CHECK(rate > 0.0);
      }
    }
  }
}

TEST(every_set_multiplies_floats) {
  for (const Isa isa : test::supported_isas()) CHECK(select_peak_loop(Unit::fp32, isa).run != nullptr);
  CHECK(select_peak_loop(Unit::bf16, Isa::generic).run == nullptr);
}

TEST(more_memory_than_there_is_is_no_rate) { CHECK(read_bandwidths(std::int64_t{1} << 60, 1, Isa::generic).empty()); }

}  // namespace
}  // namespace tusi
