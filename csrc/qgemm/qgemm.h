// Matrix products over integer weights: out[t][n] = sum_k x[t][k] * (code[n][k] - zero) * scale[n][group of k].
//
// Weights (one layout for every instruction set). Sixteen output rows are a block; columns come in scale groups, each
// padded to chunks of eight columns; what is padding holds the code of zero.
//
//   int4   [block][chunk][16 rows][4 bytes]      byte j of a row: column j (low nibble) and column 4 + j (high), plus 8
//   int8   [block][chunk][2][16 rows][4 bytes]   columns 0..3, then columns 4..7, each plus 128
//   scales [block][group][16 rows]               bfloat16, or float32 (foreign checkpoints)
//
// so that one 64-byte load holds four columns of sixteen rows: the operand of `vpdpbusd`, which multiplies unsigned
// bytes (the codes) by signed ones (activations) and adds four neighbours into an int32.
//
// Activations are rounded a row and group at a time: scale = largest / 127, code = rint(x * (127 / largest)). `offsets`
// holds -zero * sum of a group's codes, from where the integer sum starts, so that the weights' zero costs nothing.
//
// What every instruction set computes, bit for bit (and the slow twin `gemm_int_int8` in kernels/reference.py):
//   for each group in order:  out += float(integer sum) * (scale_x * scale_w)       each step rounded, never fused
// so a row's result depends on nothing but that row and the matrix. With float32 activations (`float_pair`) a group is
// summed column after column in float32 and then scaled; there the last bits differ between instruction sets.
//
// Types and declarations only: ISA files include this.
#pragma once

#include <cstdint>

#include "core/float_rows.h"

namespace tusi {

constexpr std::int64_t block_rows = 16;
constexpr std::int64_t chunk_columns = 8;

struct PackedMatrix {
  const std::uint8_t* codes;
  const void* scales;
  std::int64_t rows, inner, group_size;  // N, K
  std::int64_t groups, group_chunks;     // group_chunks: chunks of every group but the last
  std::int64_t chunks;                   // of a row: its padded width is chunks * 8
  std::int64_t chunk_bytes;              // of a block: 64 or 128
  int zero;                              // the code of zero: 8 or 128
  bool four_bits, float_scales;
};

// Rows of activations, rounded for the groups of one matrix. Row r of the product reads row index[r] (r if null).
struct RoundedRows {
  const std::int8_t* codes;      // [T][chunks * 8], zeros in the padding
  const float* scales;           // [T][groups]
  const std::int32_t* offsets;   // [T][groups]
  const std::int32_t* index;
};

// Where two blocks of sixteen outputs go: lane l of row r of block j to out[j][r * stride + l], l < lanes[j]. A single
// block has blocks[1] < 0. `next` is what the thread will read when it is done with block j, perhaps of another matrix of
// the same layout, or null: the kernel asks for its beginning while it reads the end of this one.
struct NextBlock {
  const std::uint8_t* codes;
  const void* scales;
};

struct BlockPair {
  std::int64_t blocks[2];
  float* out[2];
  std::int64_t stride;
  int lanes[2];
  NextBlock next[2];
};

// What an instruction set offers. Rows t0..t1 of the product for two blocks of the matrix.
struct QgemmKernels {
  void (*int8_pair)(const PackedMatrix& w, const RoundedRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p);
  void (*float_pair)(const PackedMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p);
  // Rounds groups g0..g1 of one row for the matrix w; x is the first column of g0, the others point to the row's start.
  // NaN and infinities make the scale of their group NaN; a group whose largest value is below 2^-100 becomes zeros.
  void (*round_groups)(const PackedMatrix& w, std::int64_t g0, std::int64_t g1, const float* x, std::int8_t* codes,
                       float* scales, std::int32_t* offsets);
  // gate[i] = gate[i] * sigmoid(gate[i]) * up[i]; the same bits on every instruction set.
  void (*silu_and_mul)(float* gate, const float* up, std::int64_t count);
};

namespace generic {
const QgemmKernels& qgemm_kernels() noexcept;
}
namespace avx2 {
const QgemmKernels& qgemm_kernels() noexcept;
}
namespace avx512 {
const QgemmKernels& qgemm_kernels() noexcept;
}

}  // namespace tusi
