// AVX2 and FMA. As avx512.cpp with a block of rows in two halves of eight. Codes of four bits are multiplied by
// `vpmaddubsw`, whose 16-bit sums hold eight steps (8 * 2 * 15 * 127 < 2^15); codes of eight bits would overflow
// there, so bytes are widened and multiplied by `vpmaddwd`.
// Compiled without contraction: a product and a sum are rounded each, as everywhere else.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include <immintrin.h>

#include "qgemm/qgemm.h"
#include "qgemm/round_avx2.h"

namespace tusi::avx2 {
namespace {

constexpr std::int64_t chunks_in_16_bits = 4;

std::int64_t chunks_of(const PackedMatrix& w, std::int64_t group) {
  return group + 1 < w.groups ? w.group_chunks : w.chunks - group * w.group_chunks;
}

__m256 load_scales(const PackedMatrix& w, std::int64_t block, std::int64_t group, int half) {
  const std::int64_t at = (block * w.groups + group) * block_rows + 8 * half;
  if (w.float_scales) return _mm256_loadu_ps(static_cast<const float*>(w.scales) + at);
  const std::uint16_t* bits = static_cast<const std::uint16_t*>(w.scales) + at;
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bits));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

__m256i four_bytes(const std::int8_t* from) {
  int word;
  __builtin_memcpy(&word, from, sizeof(word));
  return _mm256_set1_epi32(word);
}

__m256i load(const std::uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

void store(const BlockPair& p, int j, std::int64_t row, int half, __m256 values) {
  if (p.lanes[j] <= 8 * half) return;
  _mm256_maskstore_ps(p.out[j] + row * p.stride + 8 * half, lanes_below(p.lanes[j] - 8 * half), values);
}

std::int64_t source_row(const std::int32_t* index, std::int64_t row) { return index == nullptr ? row : index[row]; }

// These two add chunks first..end of half a block to the sums of TT rows.
template <int TT>
void add_four_bits(const std::uint8_t* codes, std::int64_t first, std::int64_t end,
                   const std::int8_t* const (&rows)[TT], __m256i (&acc)[TT]) {
  const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  while (first < end) {
    const std::int64_t stop = end - first < chunks_in_16_bits ? end : first + chunks_in_16_bits;
    __m256i narrow[TT];
    for (int i = 0; i < TT; ++i) narrow[i] = _mm256_setzero_si256();
    for (; first < stop; ++first) {
      const __m256i bytes = load(codes + first * 64);
      const __m256i low = _mm256_and_si256(bytes, nibble);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
      for (int i = 0; i < TT; ++i) {
        const std::int8_t* x = rows[i] + first * chunk_columns;
        narrow[i] = _mm256_add_epi16(narrow[i], _mm256_maddubs_epi16(low, four_bytes(x)));
        narrow[i] = _mm256_add_epi16(narrow[i], _mm256_maddubs_epi16(high, four_bytes(x + 4)));
      }
    }
    for (int i = 0; i < TT; ++i) acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(narrow[i], ones));
  }
}

template <int TT>
void add_eight_bits(const std::uint8_t* codes, std::int64_t first, std::int64_t end,
                    const std::int8_t* const (&rows)[TT], __m256i (&acc)[TT]) {
  const __m256i low_byte = _mm256_set1_epi16(255);
  for (; first < end; ++first) {
    for (int part = 0; part < 2; ++part) {
      const __m256i bytes = load(codes + first * 128 + part * 64);
      const __m256i even = _mm256_and_si256(bytes, low_byte), odd = _mm256_srli_epi16(bytes, 8);
      for (int i = 0; i < TT; ++i) {
        const __m256i x = four_bytes(rows[i] + first * chunk_columns + 4 * part);
        const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), x_odd = _mm256_srai_epi16(x, 8);
        acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(even, x_even));
        acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(odd, x_odd));
      }
    }
  }
}

template <bool FourBits, int TT>
void int8_tile(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, const BlockPair& p, int j, int half) {
  const std::uint8_t* codes = w.codes + p.blocks[j] * w.chunks * w.chunk_bytes + 32 * half;
  const std::int8_t* rows[TT];
  std::int64_t at[TT];
  __m256 sums[TT];
  for (int i = 0; i < TT; ++i) {
    const std::int64_t row = source_row(x.index, t + i);
    rows[i] = x.codes + row * w.chunks * chunk_columns;
    at[i] = row * w.groups;
    sums[i] = _mm256_setzero_ps();
  }
  for (std::int64_t group = 0; group < w.groups; ++group) {
    __m256i acc[TT];
    for (int i = 0; i < TT; ++i) acc[i] = _mm256_set1_epi32(x.offsets[at[i] + group]);
    const std::int64_t first = group * w.group_chunks, end = first + chunks_of(w, group);
    if (FourBits) {
      add_four_bits<TT>(codes, first, end, rows, acc);
    } else {
      add_eight_bits<TT>(codes, first, end, rows, acc);
    }
    const __m256 row_scales = load_scales(w, p.blocks[j], group, half);
    for (int i = 0; i < TT; ++i) {
      const __m256 both = _mm256_mul_ps(_mm256_set1_ps(x.scales[at[i] + group]), row_scales);
      sums[i] = _mm256_add_ps(sums[i], _mm256_mul_ps(_mm256_cvtepi32_ps(acc[i]), both));
    }
  }
  for (int i = 0; i < TT; ++i) store(p, j, t + i, half, sums[i]);
}

template <bool FourBits>
void int8_rows(const PackedMatrix& w, const RoundedRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  for (int j = 0; j < (p.blocks[1] < 0 ? 1 : 2); ++j) {
    std::int64_t t = t0;
    for (; t + 4 <= t1; t += 4) {
      for (int half = 0; half < 2; ++half) int8_tile<FourBits, 4>(w, x, t, p, j, half);
    }
    for (; t < t1; ++t) {
      for (int half = 0; half < 2; ++half) int8_tile<FourBits, 1>(w, x, t, p, j, half);
    }
  }
}

void int8_pair(const PackedMatrix& w, const RoundedRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  w.four_bits ? int8_rows<true>(w, x, t0, t1, p) : int8_rows<false>(w, x, t0, t1, p);
}

// Column `column` (0..7) of a chunk for eight rows, as floats, its zero taken away.
template <bool FourBits>
__m256 column_of(const std::uint8_t* chunk, int column) {
  const int shift = FourBits ? 8 * (column % 4) + 4 * (column / 4) : 8 * (column % 4);
  const __m256i words = load(chunk + (FourBits ? 0 : 64 * (column / 4)));
  const __m256i codes = _mm256_and_si256(_mm256_srl_epi32(words, _mm_cvtsi32_si128(shift)),
                                         _mm256_set1_epi32(FourBits ? 15 : 255));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(FourBits ? 8 : 128)));
}

template <bool FourBits, int TT>
void float_tile(const PackedMatrix& w, const FloatRows& x, std::int64_t t, const BlockPair& p, int j, int half) {
  const std::uint8_t* codes = w.codes + p.blocks[j] * w.chunks * w.chunk_bytes + 32 * half;
  const float* rows[TT];
  __m256 sums[TT];
  for (int i = 0; i < TT; ++i) {
    rows[i] = x.x + source_row(x.index, t + i) * x.stride;
    sums[i] = _mm256_setzero_ps();
  }
  for (std::int64_t group = 0; group < w.groups; ++group) {
    __m256 acc[TT];
    for (int i = 0; i < TT; ++i) acc[i] = _mm256_setzero_ps();
    const std::int64_t begin = group * w.group_size;
    const std::int64_t end = begin + w.group_size < w.inner ? begin + w.group_size : w.inner;
    const std::uint8_t* chunk = codes + group * w.group_chunks * w.chunk_bytes;
    for (std::int64_t k = begin; k < end; k += chunk_columns, chunk += w.chunk_bytes) {
      const int columns = end - k < chunk_columns ? static_cast<int>(end - k) : static_cast<int>(chunk_columns);
      for (int column = 0; column < columns; ++column) {
        const __m256 weights = column_of<FourBits>(chunk, column);
        for (int i = 0; i < TT; ++i) {
          acc[i] = _mm256_fmadd_ps(_mm256_set1_ps(rows[i][k + column]), weights, acc[i]);
        }
      }
    }
    const __m256 scale = load_scales(w, p.blocks[j], group, half);
    for (int i = 0; i < TT; ++i) sums[i] = _mm256_fmadd_ps(acc[i], scale, sums[i]);
  }
  for (int i = 0; i < TT; ++i) store(p, j, t + i, half, sums[i]);
}

template <bool FourBits>
void float_rows(const PackedMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  for (int j = 0; j < (p.blocks[1] < 0 ? 1 : 2); ++j) {
    for (int half = 0; half < 2; ++half) {
      std::int64_t t = t0;
      for (; t + 4 <= t1; t += 4) float_tile<FourBits, 4>(w, x, t, p, j, half);
      for (; t < t1; ++t) float_tile<FourBits, 1>(w, x, t, p, j, half);
    }
  }
}

void float_pair(const PackedMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  w.four_bits ? float_rows<true>(w, x, t0, t1, p) : float_rows<false>(w, x, t0, t1, p);
}

// exp by a polynomial on -ln2/2..ln2/2 and a shift of the exponent; the same steps in every file.
__m256 sigmoid(__m256 x) {
  __m256 z = _mm256_sub_ps(_mm256_setzero_ps(), x);
  z = _mm256_max_ps(_mm256_min_ps(z, _mm256_set1_ps(88.0F)), _mm256_set1_ps(-87.0F));
  const __m256 magic = _mm256_set1_ps(12582912.0F);
  const __m256 n = _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(z, _mm256_set1_ps(1.44269504F)), magic), magic);
  __m256 r = _mm256_sub_ps(z, _mm256_mul_ps(n, _mm256_set1_ps(0.693359375F)));
  r = _mm256_sub_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(-2.12194440e-4F)));
  __m256 y = _mm256_set1_ps(1.9875691500e-4F);
  y = _mm256_add_ps(_mm256_mul_ps(y, r), _mm256_set1_ps(1.3981999507e-3F));
  y = _mm256_add_ps(_mm256_mul_ps(y, r), _mm256_set1_ps(8.3334519073e-3F));
  y = _mm256_add_ps(_mm256_mul_ps(y, r), _mm256_set1_ps(4.1665795894e-2F));
  y = _mm256_add_ps(_mm256_mul_ps(y, r), _mm256_set1_ps(1.6666665459e-1F));
  y = _mm256_add_ps(_mm256_mul_ps(y, r), _mm256_set1_ps(5.0000001201e-1F));
  y = _mm256_add_ps(_mm256_mul_ps(y, _mm256_mul_ps(r, r)), _mm256_add_ps(r, _mm256_set1_ps(1.0F)));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  y = _mm256_mul_ps(y, _mm256_castsi256_ps(exponent));
  return _mm256_div_ps(_mm256_set1_ps(1.0F), _mm256_add_ps(_mm256_set1_ps(1.0F), y));
}

void silu_and_mul(float* gate, const float* up, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += 8) {
    const __m256i lanes = lanes_below(count - i);
    const __m256 x = _mm256_maskload_ps(gate + i, lanes);
    const __m256 silu = _mm256_mul_ps(x, sigmoid(x));
    _mm256_maskstore_ps(gate + i, lanes, _mm256_mul_ps(silu, _mm256_maskload_ps(up + i, lanes)));
  }
}

constexpr QgemmKernels kernels{int8_pair, float_pair, round_groups<Eight>, silu_and_mul};

}  // namespace

const QgemmKernels& qgemm_kernels() noexcept { return kernels; }

}  // namespace tusi::avx2
