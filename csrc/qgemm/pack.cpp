// Row-major codes to the layout of qgemm.h and back. Portable: it runs when a model is loaded, and for embeddings.
#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
#include "qgemm/driver.h"

namespace tusi {
namespace {

std::int64_t chunks_of(const PackedMatrix& w, std::int64_t group) {
  return group + 1 < w.groups ? w.group_chunks : w.chunks - group * w.group_chunks;
}

// Where a column of a block's row lies: its byte in the chunk, and the shift of its nibble.
struct Place {
  std::int64_t byte;
  int shift;
};

Place place(const PackedMatrix& w, std::int64_t row, std::int64_t column) {
  const std::int64_t in_four = column % 4, second = column / 4;
  if (w.four_bits) return {row * 4 + in_four, static_cast<int>(4 * second)};
  return {second * 64 + row * 4 + in_four, 0};
}

// Calls visit(chunk, column in it, column of the matrix or -1 in the padding) for all of a row.
template <class Visit>
void each_column(const PackedMatrix& w, const Visit& visit) {
  for (std::int64_t group = 0; group < w.groups; ++group) {
    const std::int64_t begin = group * w.group_size, end = std::min(begin + w.group_size, w.inner);
    for (std::int64_t c = 0; c < chunks_of(w, group) * chunk_columns; ++c) {
      visit(group * w.group_chunks + c / chunk_columns, c % chunk_columns, begin + c < end ? begin + c : -1);
    }
  }
}

template <class T>
void pack_scales(const PackedMatrix& w, std::int64_t block, const T* scales, T* packed) {
  for (std::int64_t group = 0; group < w.groups; ++group) {
    for (std::int64_t r = 0; r < block_rows; ++r) {
      const std::int64_t row = block * block_rows + r;
      packed[(block * w.groups + group) * block_rows + r] = row < w.rows ? scales[row * w.groups + group] : T{};
    }
  }
}

template <class T>
void unpack_scales(const PackedMatrix& w, std::int64_t block, const T* packed, T* scales) {
  for (std::int64_t group = 0; group < w.groups; ++group) {
    for (std::int64_t r = 0; r < std::min(block_rows, w.rows - block * block_rows); ++r) {
      scales[(block * block_rows + r) * w.groups + group] = packed[(block * w.groups + group) * block_rows + r];
    }
  }
}

float scale_of(const PackedMatrix& w, std::int64_t row, std::int64_t group) {
  const std::int64_t at = (row / block_rows * w.groups + group) * block_rows + row % block_rows;
  if (w.float_scales) return static_cast<const float*>(w.scales)[at];
  const std::uint32_t word = static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(w.scales)[at]) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

int code_of(const PackedMatrix& w, std::int64_t row, std::int64_t chunk, std::int64_t column) {
  const Place at = place(w, row % block_rows, column);
  const int byte = w.codes[(row / block_rows * w.chunks + chunk) * w.chunk_bytes + at.byte];
  return (w.four_bits ? (byte >> at.shift) & 15 : byte) - w.zero;
}

}  // namespace

void pack(const PackedMatrix& w, const std::int8_t* codes, const void* scales, std::uint8_t* packed,
          void* packed_scales) {
  if (w.rows == 0 || w.inner == 0) return;
  parallel_for(blocks_of(w), [&](std::int64_t block) {
    std::uint8_t* to = packed + block * w.chunks * w.chunk_bytes;
    std::memset(to, 0, static_cast<std::size_t>(w.chunks * w.chunk_bytes));
    each_column(w, [&](std::int64_t chunk, std::int64_t column, std::int64_t source) {
      for (std::int64_t r = 0; r < block_rows; ++r) {
        const std::int64_t row = block * block_rows + r;
        const int code = row < w.rows && source >= 0 ? codes[row * w.inner + source] : 0;
        const Place at = place(w, r, column);
        std::uint8_t* byte = to + chunk * w.chunk_bytes + at.byte;
        *byte = static_cast<std::uint8_t>(*byte | ((code + w.zero) << at.shift));
      }
    });
    if (w.float_scales) {
      pack_scales(w, block, static_cast<const float*>(scales), static_cast<float*>(packed_scales));
    } else {
      pack_scales(w, block, static_cast<const std::uint16_t*>(scales), static_cast<std::uint16_t*>(packed_scales));
    }
  });
}

void unpack(const PackedMatrix& w, std::int8_t* codes, void* scales) {
  parallel_for(blocks_of(w), [&](std::int64_t block) {
    const std::int64_t end = std::min(block * block_rows + block_rows, w.rows);
    for (std::int64_t row = block * block_rows; row < end; ++row) {
      each_column(w, [&](std::int64_t chunk, std::int64_t column, std::int64_t source) {
        if (source >= 0) codes[row * w.inner + source] = static_cast<std::int8_t>(code_of(w, row, chunk, column));
      });
    }
    if (w.float_scales) {
      unpack_scales(w, block, static_cast<const float*>(w.scales), static_cast<float*>(scales));
    } else {
      unpack_scales(w, block, static_cast<const std::uint16_t*>(w.scales), static_cast<std::uint16_t*>(scales));
    }
  });
}

void dequantize_rows(const PackedMatrix& w, const std::int64_t* ids, std::int64_t count, float* out) {
  parallel_ranges(count, 16 * 1024 / (w.inner + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      each_column(w, [&](std::int64_t chunk, std::int64_t column, std::int64_t source) {
        if (source < 0) return;
        const float code = static_cast<float>(code_of(w, ids[i], chunk, column));
        out[i * w.inner + source] = code * scale_of(w, ids[i], source / w.group_size);
      });
    }
  });
}

}  // namespace tusi
