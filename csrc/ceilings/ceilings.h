// What this machine can do at most: the rates that benchmarks are measured against. All threads of the pool together.
//
//   read    GB/s (1e9) of anonymous memory in huge pages, each thread reading its own contiguous share with the widest
//           loads of the instruction set
//   int8    GMAC/s of the widest dot product of bytes: vpdpbusd, or vpmaddubsw and vpmaddwd with AVX2 alone
//   bf16    GMAC/s of vdpbf16ps
//   fp32    GMAC/s of fused multiply-adds
//
// A loop keeps twelve independent sums in registers, which hides the latency of the unit on every x86-64 of the last
// ten years; nothing is loaded. A unit that is not there has no loop.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cpu.h"

namespace tusi {

enum class Unit : int { int8 = 0, bf16 = 1, fp32 = 2 };

// Multiplications of one call with `iterations`; the sum of what was computed is only there to be used.
struct PeakLoop {
  std::int64_t macs_per_iteration;
  std::uint64_t (*run)(std::int64_t iterations);
};

// The sum of the 8-byte words in `data` (a multiple of 256 bytes, aligned to 64).
using ReadLoop = std::uint64_t (*)(const unsigned char* data, std::int64_t bytes);

ReadLoop select_read_loop(Isa isa) noexcept;
// run is null where this processor (or build) has no such unit within the instruction set.
PeakLoop select_peak_loop(Unit unit, Isa isa) noexcept;

// GB/s of each of `rounds` passes over `bytes` of fresh memory; empty if memory cannot be had.
std::vector<double> read_bandwidths(std::int64_t bytes, int rounds, Isa isa);
// GMAC/s of each of `rounds` runs of about `seconds`; empty if there is no such unit.
std::vector<double> unit_peaks(Unit unit, int rounds, double seconds, Isa isa);

namespace generic {
std::uint64_t read_words(const unsigned char* data, std::int64_t bytes);
PeakLoop fp32_loop() noexcept;
}  // namespace generic
namespace avx2 {
std::uint64_t read_words(const unsigned char* data, std::int64_t bytes);
PeakLoop fp32_loop() noexcept;
PeakLoop int8_loop() noexcept;
}  // namespace avx2
namespace avx512 {
std::uint64_t read_words(const unsigned char* data, std::int64_t bytes);
PeakLoop fp32_loop() noexcept;
PeakLoop int8_loop() noexcept;
PeakLoop bf16_loop() noexcept;
}  // namespace avx512

}  // namespace tusi
