// The threaded product over integer weights, and what its callers share: shapes, rounding of rows, packing.
#pragma once

#include <cstdint>

#include "core/cpu.h"
#include "core/scratch.h"
#include "qgemm/qgemm.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported(). AVX-512 without VNNI takes those of AVX2: the results are the same.
const QgemmKernels& select_qgemm_kernels(Isa isa) noexcept;

// A description of [rows][inner] in groups, without its arrays.
PackedMatrix packed_matrix(std::int64_t rows, std::int64_t inner, std::int64_t group_size, bool four_bits) noexcept;

std::int64_t blocks_of(const PackedMatrix& w) noexcept;

// So few wait for memory: a thread that goes on for long, without a look at what the others do, reads faster.
constexpr std::int64_t few_tokens = 16;

// Where a block lies, for BlockPair::next; nulls beyond the last.
NextBlock block_at(const PackedMatrix& w, std::int64_t block) noexcept;

enum class Activations : int { int8, float32 };

struct QgemmArgs {
  PackedMatrix weight;
  const float* x;             // [T][K]
  const float* norm_weight;   // null, or [K]: x is RMS-normalised first
  const float* bias;          // null, or [N]
  float* out;                 // [T][N]
  std::int64_t tokens;
  float eps;
  bool add;                   // to what out holds
  Activations activations;
};

void qgemm(const QgemmArgs& args, const QgemmKernels& kernels);

struct RoundedBuffer {
  Scratch codes, scales, offsets;
  RoundedRows rows;  // points into the three

  void resize(const PackedMatrix& w, std::int64_t tokens);
  void round(const PackedMatrix& w, const QgemmKernels& kernels, std::int64_t row, std::int64_t g0, std::int64_t g1,
             const float* x);
};

// Rounds rows 0..tokens of x [tokens][w.inner] on all threads.
void round_rows(const PackedMatrix& w, const QgemmKernels& kernels, const float* x, std::int64_t tokens,
                RoundedBuffer* buffer);

// Codes [rows][inner] (signed) and scales [rows][groups] to and from the layout of qgemm.h; padding is filled. T is
// std::uint16_t or float, as the matrix says.
void pack(const PackedMatrix& w, const std::int8_t* codes, const void* scales, std::uint8_t* packed,
          void* packed_scales);
void unpack(const PackedMatrix& w, std::int8_t* codes, void* scales);

// out[i] = the values of row ids[i].
void dequantize_rows(const PackedMatrix& w, const std::int64_t* ids, std::int64_t count, float* out);

}  // namespace tusi
