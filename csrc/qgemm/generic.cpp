// Any machine. The loops over sixteen rows are what a compiler can vectorise with whatever it has.
#include <cmath>
#include <cstring>

#include "qgemm/qgemm.h"

namespace tusi::generic {
namespace {

std::int64_t chunks_of(const PackedMatrix& w, std::int64_t group) {
  return group + 1 < w.groups ? w.group_chunks : w.chunks - group * w.group_chunks;
}

float scale_of(const PackedMatrix& w, std::int64_t block, std::int64_t group, std::int64_t row) {
  const std::int64_t at = (block * w.groups + group) * block_rows + row;
  if (w.float_scales) return static_cast<const float*>(w.scales)[at];
  const std::uint32_t word = static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(w.scales)[at]) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

std::int64_t source_row(const std::int32_t* index, std::int64_t row) { return index == nullptr ? row : index[row]; }

// Codes of column `column` (0..7) of a chunk, of all sixteen rows, their zero still in them.
void column_codes(const PackedMatrix& w, const std::uint8_t* chunk, int column, int (&codes)[block_rows]) {
  const std::uint8_t* from = chunk + column % 4 + (w.four_bits ? 0 : 64 * (column / 4));
  const int shift = w.four_bits ? 4 * (column / 4) : 0, mask = w.four_bits ? 15 : 255;
  for (int r = 0; r < block_rows; ++r) codes[r] = (from[4 * r] >> shift) & mask;
}

void int8_row(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, std::int64_t block, float* out, int lanes) {
  const std::int64_t row = source_row(x.index, t);
  const std::int8_t* values = x.codes + row * w.chunks * chunk_columns;
  float sums[block_rows] = {};
  for (std::int64_t group = 0; group < w.groups; ++group) {
    std::int32_t acc[block_rows];
    for (std::int32_t& sum : acc) sum = x.offsets[row * w.groups + group];
    const std::int64_t first = group * w.group_chunks, end = first + chunks_of(w, group);
    for (std::int64_t chunk = first; chunk < end; ++chunk) {
      for (int column = 0; column < chunk_columns; ++column) {
        int codes[block_rows];
        column_codes(w, w.codes + (block * w.chunks + chunk) * w.chunk_bytes, column, codes);
        const int value = values[chunk * chunk_columns + column];
        for (int r = 0; r < block_rows; ++r) acc[r] += codes[r] * value;
      }
    }
    const float scale = x.scales[row * w.groups + group];
    for (int r = 0; r < block_rows; ++r) {
      sums[r] += static_cast<float>(acc[r]) * (scale * scale_of(w, block, group, r));
    }
  }
  std::memcpy(out, sums, static_cast<std::size_t>(lanes) * sizeof(float));
}

void int8_pair(const PackedMatrix& w, const RoundedRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  for (std::int64_t t = t0; t < t1; ++t) {
    for (int j = 0; j < (p.blocks[1] < 0 ? 1 : 2); ++j) {
      int8_row(w, x, t, p.blocks[j], p.out[j] + t * p.stride, p.lanes[j]);
    }
  }
}

void float_row(const PackedMatrix& w, const float* x, std::int64_t block, float* out, int lanes) {
  float sums[block_rows] = {};
  for (std::int64_t group = 0; group < w.groups; ++group) {
    float acc[block_rows] = {};
    const std::int64_t begin = group * w.group_size;
    const std::int64_t end = begin + w.group_size < w.inner ? begin + w.group_size : w.inner;
    const std::uint8_t* codes_of_group = w.codes + (block * w.chunks + group * w.group_chunks) * w.chunk_bytes;
    for (std::int64_t k = begin; k < end; ++k) {
      int codes[block_rows];
      const std::int64_t column = k - begin;
      column_codes(w, codes_of_group + column / chunk_columns * w.chunk_bytes,
                   static_cast<int>(column % chunk_columns), codes);
      for (int r = 0; r < block_rows; ++r) acc[r] += x[k] * static_cast<float>(codes[r] - w.zero);
    }
    for (int r = 0; r < block_rows; ++r) sums[r] += acc[r] * scale_of(w, block, group, r);
  }
  std::memcpy(out, sums, static_cast<std::size_t>(lanes) * sizeof(float));
}

void float_pair(const PackedMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  for (std::int64_t t = t0; t < t1; ++t) {
    for (int j = 0; j < (p.blocks[1] < 0 ? 1 : 2); ++j) {
      float_row(w, x.x + source_row(x.index, t) * x.stride, p.blocks[j], p.out[j] + t * p.stride, p.lanes[j]);
    }
  }
}

float largest_magnitude(const float* x, std::int64_t count, bool* finite) {
  float largest = 0.0F;
  *finite = true;
  for (std::int64_t k = 0; k < count; ++k) {
    const float magnitude = std::fabs(x[k]);
    if (!std::isfinite(magnitude)) *finite = false;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

void round_groups(const PackedMatrix& w, std::int64_t g0, std::int64_t g1, const float* x, std::int8_t* codes,
                  float* scales, std::int32_t* offsets) {
  for (std::int64_t group = g0; group < g1; ++group) {
    const float* from = x + (group - g0) * w.group_size;
    const std::int64_t left = w.inner - group * w.group_size;
    const std::int64_t columns = left < w.group_size ? left : w.group_size;
    bool finite = true;
    const float largest = largest_magnitude(from, columns, &finite);
    const bool zero = !finite || largest < 0x1p-100F;
    const float factor = zero ? 0.0F : 127.0F / largest;
    scales[group] = finite ? (zero ? 0.0F : largest / 127.0F) : std::nanf("");
    std::int8_t* to = codes + group * w.group_chunks * chunk_columns;
    std::int32_t total = 0;
    for (std::int64_t k = 0; k < chunks_of(w, group) * chunk_columns; ++k) {
      const int rounded = zero || k >= columns ? 0 : static_cast<int>(std::nearbyint(from[k] * factor));
      to[k] = static_cast<std::int8_t>(rounded);
      total += rounded;
    }
    offsets[group] = -w.zero * total;
  }
}

// exp by a polynomial on -ln2/2..ln2/2 and a shift of the exponent; the same steps in every file.
float sigmoid(float x) {
  float z = 0.0F - x;
  z = z < 88.0F ? z : 88.0F;
  z = z > -87.0F ? z : -87.0F;
  const float magic = 12582912.0F;
  const float n = (z * 1.44269504F + magic) - magic;
  float r = z - n * 0.693359375F;
  r = r - n * -2.12194440e-4F;
  float y = 1.9875691500e-4F;
  constexpr float rest[] = {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F};
  for (const float next : rest) y = y * r + next;
  y = y * (r * r) + (r + 1.0F);
  const std::uint32_t word = static_cast<std::uint32_t>(static_cast<int>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &word, sizeof(power));
  return 1.0F / (1.0F + y * power);
}

void silu_and_mul(float* gate, const float* up, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) gate[i] = (gate[i] * sigmoid(gate[i])) * up[i];
}

constexpr QgemmKernels kernels{int8_pair, float_pair, round_groups, silu_and_mul};

}  // namespace

const QgemmKernels& qgemm_kernels() noexcept { return kernels; }

}  // namespace tusi::generic
