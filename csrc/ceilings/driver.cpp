#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "ceilings/ceilings.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t huge_page = 2 << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Each thread runs the loop once, at the same time.
double seconds_of(const PeakLoop& loop, std::int64_t iterations, int threads) {
  std::atomic<std::uint64_t> sink{0};
  const Clock::time_point start = Clock::now();
  parallel_for(threads, [&](std::int64_t) { sink.fetch_add(loop.run(iterations), std::memory_order_relaxed); });
  return seconds_since(start);
}

#if defined(TUSI_X86) && !defined(TUSI_EMULATE_AVX512)
constexpr bool has_avx512_loops = true;
#else
constexpr bool has_avx512_loops = false;
#endif

}  // namespace

ReadLoop select_read_loop(Isa isa) noexcept {
#if defined(TUSI_X86)
  if constexpr (has_avx512_loops) {
    if (isa == Isa::avx512) return &avx512::read_words;
  }
  if (isa != Isa::generic) return &avx2::read_words;
#endif
  (void)isa;
  return &generic::read_words;
}

PeakLoop select_peak_loop(Unit unit, Isa isa) noexcept {
#if defined(TUSI_X86)
  const CpuFeatures cpu = detect_cpu();
  if constexpr (has_avx512_loops) {
    if (isa == Isa::avx512 && unit == Unit::fp32) return avx512::fp32_loop();
    if (isa == Isa::avx512 && unit == Unit::int8 && cpu.avx512_vnni) return avx512::int8_loop();
    if (isa == Isa::avx512 && unit == Unit::bf16 && cpu.avx512_bf16) return avx512::bf16_loop();
  }
  if (isa != Isa::generic && unit == Unit::fp32) return avx2::fp32_loop();
  if (isa != Isa::generic && unit == Unit::int8) return avx2::int8_loop();
#endif
  (void)isa;
  return unit == Unit::fp32 ? generic::fp32_loop() : PeakLoop{0, nullptr};
}

std::vector<double> read_bandwidths(std::int64_t bytes, int rounds, Isa isa) {
  const std::int64_t threads = num_threads();
  // A share is a whole number of huge pages, so that no page is read by two threads.
  const std::int64_t share = std::max(bytes / threads / huge_page, std::int64_t{1}) * huge_page;
  const std::size_t mapped = static_cast<std::size_t>(share * threads + huge_page);
  void* region = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (region == MAP_FAILED) return {};
#if defined(MADV_HUGEPAGE)
  madvise(region, mapped, MADV_HUGEPAGE);  // a wish: where it is not granted small pages are what programs get
#endif
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(region);
  unsigned char* data = static_cast<unsigned char*>(region) + (huge_page - address % huge_page) % huge_page;
  // Written first: untouched pages are all the one zero page and would be read from cache.
  parallel_for(threads, [=](std::int64_t t) { std::memset(data + t * share, 1, static_cast<std::size_t>(share)); });
  const ReadLoop loop = select_read_loop(isa);
  std::atomic<std::uint64_t> sink{0};  // so that the reads are not thrown away
  std::vector<double> rates;
  for (int round = 0; round < rounds; ++round) {
    const Clock::time_point start = Clock::now();
    parallel_for(threads, [&](std::int64_t t) {
      sink.fetch_add(loop(data + t * share, share), std::memory_order_relaxed);
    });
    rates.push_back(static_cast<double>(share * threads) / seconds_since(start) / 1e9);
  }
  munmap(region, mapped);
  return rates;
}

std::vector<double> unit_peaks(Unit unit, int rounds, double seconds, Isa isa) {
  const PeakLoop loop = select_peak_loop(unit, isa);
  if (loop.run == nullptr) return {};
  const int threads = num_threads();
  std::int64_t iterations = 1 << 16;
  double elapsed = seconds_of(loop, iterations, threads);
  // Also the warm-up: processors take a moment to reach the clock that they hold under such a load.
  while (elapsed < seconds / 4) {
    iterations *= 2;
    elapsed = seconds_of(loop, iterations, threads);
  }
  const double scale = std::max(seconds / std::max(elapsed, 1e-9), 1.0);
  iterations = static_cast<std::int64_t>(static_cast<double>(iterations) * scale);
  std::vector<double> rates;
  for (int round = 0; round < rounds; ++round) {
    const double macs = static_cast<double>(loop.macs_per_iteration) * static_cast<double>(iterations * threads);
    rates.push_back(macs / seconds_of(loop, iterations, threads) / 1e9);
  }
  return rates;
}

}  // namespace tusi
