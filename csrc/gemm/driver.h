// The threaded matrix product over the tiles of one ISA, and how much of it a thread takes at a time.
#pragma once

#include "core/cpu.h"
#include "gemm/gemm.h"

namespace tusi {

// The tile kernel of an ISA that isa_is_supported().
GemmTile select_gemm_tile(WeightFormat format, Isa isa) noexcept;

struct GemmArgs {
  PlainMatrix weight;
  const float* x;            // [T][K]
  const float* norm_weight;  // null, or [K]: x is RMS-normalised first
  const float* bias;         // null, or [N]
  float* out;                // [T][N]
  std::int64_t tokens;
  float eps;
  bool add;                  // to what out holds
};

void gemm(const GemmArgs& args, GemmTile tile);

// The matrix without its first rows.
PlainMatrix rows_from(const PlainMatrix& w, std::int64_t first) noexcept;

// Rows of the input to meet a stretch of the matrix with, so that they stay in the second-level cache meanwhile.
std::int64_t tokens_at_a_time(std::int64_t inner) noexcept;

}  // namespace tusi
