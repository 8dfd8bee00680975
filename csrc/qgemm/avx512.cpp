// AVX-512 (F, BW, DQ, VL) with VNNI. A tile of up to six tokens and two blocks of rows keeps its integer and its float
// sums in registers; weights are split into nibbles once for all its tokens, activations come as broadcast loads.
// Compiled without contraction: a product and a sum are rounded each, as everywhere else.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/avx512_intrinsics.h"
#include "qgemm/qgemm.h"
#include "qgemm/round_avx512.h"

namespace tusi::avx512 {
namespace {

// Bytes of each block that a thread asks for ahead of its reading; the best of 0.5 to 12 KiB for one and for six tokens.
// The processor foresees too little of streams that end after a block: without this a token reads half as fast.
constexpr std::int64_t near_distance = 6144, far_distance = 5120;
constexpr int max_tokens = 6;

std::int64_t chunks_of(const PackedMatrix& w, std::int64_t group) {
  return group + 1 < w.groups ? w.group_chunks : w.chunks - group * w.group_chunks;
}

// The one that may be short; 0 if there is none.
std::int64_t last_group(const PackedMatrix& w) { return w.groups == 0 ? 0 : w.groups - 1; }

__m512 load_scales(const PackedMatrix& w, std::int64_t block, std::int64_t group) {
  const std::int64_t at = (block * w.groups + group) * block_rows;
  if (w.float_scales) return _mm512_loadu_ps(static_cast<const float*>(w.scales) + at);
  const std::uint16_t* bits = static_cast<const std::uint16_t*>(w.scales) + at;
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

__m512i four_bytes(const std::int8_t* from) {
  int word;
  __builtin_memcpy(&word, from, sizeof(word));
  return _mm512_set1_epi32(word);
}

__m512i load_once(const std::uint8_t* line) {
  __m512i bytes = _mm512_loadu_si512(line);
#if !defined(TUSI_EMULATE_AVX512)
  asm("" : "+v"(bytes));  // or GCC reads them again for each use, and reading is what is scarce
#endif
  return bytes;
}

// The first and the last four columns of a chunk that begins with these bytes, as unsigned bytes.
template <bool FourBits>
__m512i first_columns(__m512i bytes) {
  return FourBits ? _mm512_and_si512(bytes, _mm512_set1_epi8(15)) : bytes;
}

template <bool FourBits>
__m512i last_columns(__m512i bytes, const std::uint8_t* chunk) {
  if (!FourBits) return _mm512_loadu_si512(chunk + 64);
  return _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
}

// Where a thread asks for memory while it reads a block: some way ahead of its reading, at the end of the block in the
// one that comes next. Without one it asks for what it has.
struct Ahead {
  const std::uint8_t* here;
  const std::uint8_t* there;  // minus the part of the way that lies in this block
  std::int64_t turn;          // from this byte on it is the other

  const char* at(std::int64_t byte) const {
    return reinterpret_cast<const char*>((byte < turn ? here : there) + byte);
  }
};

Ahead look_ahead(const std::uint8_t* codes, std::int64_t block_bytes, const std::uint8_t* next, std::int64_t distance) {
  return {codes + distance, next == nullptr ? codes : next + distance - block_bytes, block_bytes - distance};
}

NextBlock block_of(const PackedMatrix& w, std::int64_t block) {
  const std::int64_t scale_bytes = w.groups * block_rows * (w.float_scales ? 4 : 2);
  return {w.codes + block * w.chunks * w.chunk_bytes, static_cast<const char*>(w.scales) + block * scale_bytes};
}

const char* next_scales(const PackedMatrix& w, const NextBlock& next, std::int64_t group) {
  return static_cast<const char*>(next.scales) + group * block_rows * (w.float_scales ? 4 : 2);
}

void store(const BlockPair& p, int j, std::int64_t row, __m512 values) {
  _mm512_mask_storeu_ps(p.out[j] + row * p.stride, first_lanes(p.lanes[j]), values);
}

std::int64_t source_row(const std::int32_t* index, std::int64_t row) { return index == nullptr ? row : index[row]; }

// What a tile of TT rows and NN blocks reads.
template <int TT, int NN>
struct Tile {
  const std::uint8_t* codes[NN];
  Ahead ahead[NN];
  const std::int8_t* rows[TT];
  const float* scales[TT];
  const std::int32_t* offsets[TT];
};

// Adds groups begin..end, of `chunks` chunks each (Chunks, unless 0: then the loop is unrolled and sums stay where they
// are). Asks: whether memory is asked for ahead; of several tiles over the same weights the first one does.
template <bool FourBits, int TT, int NN, bool Asks, int Chunks>
inline __attribute__((always_inline)) void add_groups(const PackedMatrix& w, const Tile<TT, NN>& tile,
                                                      const BlockPair& p, std::int64_t begin, std::int64_t end,
                                                      std::int64_t chunks, __m512 (&sums)[TT][NN]) {
  constexpr std::int64_t chunk_bytes = FourBits ? 64 : 128;
  const std::int64_t count = Chunks == 0 ? chunks : Chunks, stride = Chunks == 0 ? w.group_chunks : Chunks;
  for (std::int64_t group = begin; group < end; ++group) {
    __m512i acc[TT][NN];
    for (int i = 0; i < TT; ++i) {
      for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_set1_epi32(tile.offsets[i][group]);
    }
#pragma GCC unroll 4
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t chunk = group * stride + c;
      __m512i bytes[NN], weights[NN];
      for (int j = 0; j < NN; ++j) {
        if (Asks) {
          const char* line = tile.ahead[j].at(chunk * chunk_bytes);
          _mm_prefetch(line, _MM_HINT_T0);
          if (!FourBits) _mm_prefetch(line + 64, _MM_HINT_T0);
        }
        bytes[j] = load_once(tile.codes[j] + chunk * chunk_bytes);
        weights[j] = first_columns<FourBits>(bytes[j]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < TT; ++i) {
        const __m512i values = four_bytes(tile.rows[i] + chunk * chunk_columns);
        for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], weights[j], values);
      }
      for (int j = 0; j < NN; ++j) {
        weights[j] = last_columns<FourBits>(bytes[j], tile.codes[j] + chunk * chunk_bytes);
      }
#pragma GCC unroll 8
      for (int i = 0; i < TT; ++i) {
        const __m512i values = four_bytes(tile.rows[i] + chunk * chunk_columns + 4);
        for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], weights[j], values);
      }
    }
    __m512 row_scales[NN];
    for (int j = 0; j < NN; ++j) {
      row_scales[j] = load_scales(w, p.blocks[j], group);
      if (Asks && p.next[j].scales != nullptr) _mm_prefetch(next_scales(w, p.next[j], group), _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int i = 0; i < TT; ++i) {
      const __m512 scale = _mm512_set1_ps(tile.scales[i][group]);
      for (int j = 0; j < NN; ++j) {
        const __m512 both = _mm512_mul_ps(scale, row_scales[j]);
        sums[i][j] = _mm512_add_ps(sums[i][j], _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][j]), both));
      }
    }
  }
}

template <bool FourBits, int TT, int NN, bool Asks>
void int8_tile(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, const BlockPair& p) {
  const std::int64_t block_bytes = w.chunks * (FourBits ? 64 : 128);
  Tile<TT, NN> tile;
  for (int j = 0; j < NN; ++j) {
    tile.codes[j] = w.codes + p.blocks[j] * block_bytes;
    tile.ahead[j] = look_ahead(tile.codes[j], block_bytes, p.next[j].codes, far_distance);
  }
  for (int i = 0; i < TT; ++i) {
    const std::int64_t row = source_row(x.index, t + i);
    tile.rows[i] = x.codes + row * w.chunks * chunk_columns;
    tile.scales[i] = x.scales + row * w.groups;
    tile.offsets[i] = x.offsets + row * w.groups;
  }
  __m512 sums[TT][NN];
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  const std::int64_t last = last_group(w);
  if (w.group_chunks == 4) {
    add_groups<FourBits, TT, NN, Asks, 4>(w, tile, p, 0, last, 4, sums);
  } else {
    add_groups<FourBits, TT, NN, Asks, 0>(w, tile, p, 0, last, w.group_chunks, sums);
  }
  add_groups<FourBits, TT, NN, Asks, 0>(w, tile, p, last, w.groups, chunks_of(w, last), sums);
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) store(p, j, t + i, sums[i][j]);
  }
}

using Int8Tile = void (*)(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, const BlockPair& p);

template <bool FourBits, int NN, bool Asks>
constexpr Int8Tile int8_tiles[max_tokens + 1] = {nullptr,
                                                 int8_tile<FourBits, 1, NN, Asks>,
                                                 int8_tile<FourBits, 2, NN, Asks>,
                                                 int8_tile<FourBits, 3, NN, Asks>,
                                                 int8_tile<FourBits, 4, NN, Asks>,
                                                 int8_tile<FourBits, 5, NN, Asks>,
                                                 int8_tile<FourBits, 6, NN, Asks>};

template <bool FourBits, int NN>
void int8_rows(const PackedMatrix& w, const RoundedRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  const Int8Tile* tiles = int8_tiles<FourBits, NN, true>;
  for (std::int64_t t = t0; t < t1; t += max_tokens) {
    tiles[t1 - t < max_tokens ? t1 - t : max_tokens](w, x, t, p);
    tiles = int8_tiles<FourBits, NN, false>;
  }
}

// A group of a single row: the integer sum of Chunks chunks (0: of `chunks`). The two halves of a chunk have a sum each,
// which the processor can work on side by side, and high nibbles stay where they are, 16 times too large. Nobody reads
// these weights again, so they are asked for past the larger caches: what stays there is the context's keys and values.
template <bool FourBits, int Chunks>
__m512i group_of_one(const std::uint8_t* codes, const std::int8_t* x, std::int32_t offset, std::int64_t chunks,
                     const char* ahead) {
  constexpr std::int64_t chunk_bytes = FourBits ? 64 : 128;
  const std::int64_t count = Chunks == 0 ? chunks : Chunks;
  __m512i first = _mm512_set1_epi32(offset), last = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (std::int64_t c = 0; c < count; ++c) {
    _mm_prefetch(ahead + c * chunk_bytes, _MM_HINT_NTA);
    if (!FourBits) _mm_prefetch(ahead + c * chunk_bytes + 64, _MM_HINT_NTA);
    const __m512i bytes = load_once(codes + c * chunk_bytes);
    const __m512i low = FourBits ? _mm512_and_si512(bytes, _mm512_set1_epi8(15)) : bytes;
    const __m512i high = FourBits ? _mm512_and_si512(bytes, _mm512_set1_epi8(static_cast<char>(0xF0)))
                                  : _mm512_loadu_si512(codes + c * chunk_bytes + 64);
    first = _mm512_dpbusd_epi32(first, low, four_bytes(x + c * chunk_columns));
    last = _mm512_dpbusd_epi32(last, high, four_bytes(x + c * chunk_columns + 4));
  }
  return _mm512_add_epi32(first, FourBits ? _mm512_srai_epi32(last, 4) : last);
}

template <bool FloatScales>
__m512 sixteen_scales(const char* at) {
  if (FloatScales) return _mm512_loadu_ps(at);
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

// Where one row and one block begin, and how far from there lies what is asked for in advance.
struct OneRow {
  const std::uint8_t* codes;
  const std::int8_t* values;
  const char* weight_scales;
  const float* row_scales;
  const std::int32_t* offsets;
  std::int64_t group_chunks, scales_ahead;
};

// Adds groups begin..end, of `chunks` chunks each (Chunks, unless 0).
template <bool FourBits, bool FloatScales, int Chunks>
__m512 add_groups(const OneRow& of, std::int64_t begin, std::int64_t end, std::int64_t chunks, std::int64_t ahead,
                  __m512 sum) {
  const OneRow o = of;  // a copy, which can stay in registers
  const std::int64_t stride = Chunks == 0 ? o.group_chunks : Chunks;
  for (std::int64_t group = begin; group < end; ++group) {
    const std::uint8_t* codes = o.codes + group * stride * (FourBits ? 64 : 128);
    const char* weight_scales = o.weight_scales + group * block_rows * (FloatScales ? 4 : 2);
    const __m512i acc = group_of_one<FourBits, Chunks>(codes, o.values + group * stride * chunk_columns,
                                                       o.offsets[group], chunks,
                                                       reinterpret_cast<const char*>(codes) + ahead);
    _mm_prefetch(weight_scales + o.scales_ahead, _MM_HINT_T0);
    const __m512 both = _mm512_mul_ps(_mm512_set1_ps(o.row_scales[group]), sixteen_scales<FloatScales>(weight_scales));
    sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_cvtepi32_ps(acc), both));
  }
  return sum;
}

// A single row waits for memory alone, which one stream fills better than two; what is left to do for a byte must be
// little, or the processor becomes the limit where memory is fast. The same values as int8_tile's.
template <bool FourBits, bool FloatScales, int Chunks>
void block_of_one(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, const BlockPair& p, int j,
                  const NextBlock& next) {
  const std::int64_t block_bytes = w.chunks * (FourBits ? 64 : 128), row = source_row(x.index, t);
  const std::int64_t group_bytes = w.group_chunks * (FourBits ? 64 : 128);
  const std::uint8_t* codes = w.codes + p.blocks[j] * block_bytes;
  const char* scales = static_cast<const char*>(w.scales) + p.blocks[j] * w.groups * block_rows * (FloatScales ? 4 : 2);
  const OneRow one{codes,
                   x.codes + row * w.chunks * chunk_columns,
                   scales,
                   x.scales + row * w.groups,
                   x.offsets + row * w.groups,
                   w.group_chunks,
                   next.scales == nullptr ? 0 : static_cast<const char*>(next.scales) - scales};
  // Whole groups up to where the way ahead leaves this block, those after it, and the last group, which may be short.
  const std::int64_t last = last_group(w), inside = (block_bytes - near_distance) / group_bytes;
  const std::int64_t turn = inside < 0 ? 0 : inside < last ? inside : last;
  const std::int64_t beyond = next.codes == nullptr ? 0 : next.codes - codes + near_distance - block_bytes;
  __m512 sum = _mm512_setzero_ps();
  sum = add_groups<FourBits, FloatScales, Chunks>(one, 0, turn, w.group_chunks, near_distance, sum);
  sum = add_groups<FourBits, FloatScales, Chunks>(one, turn, last, w.group_chunks, beyond, sum);
  sum = add_groups<FourBits, FloatScales, 0>(one, last, w.groups, chunks_of(w, last), beyond, sum);
  store(p, j, t, sum);
}

template <bool FourBits, bool FloatScales>
void block_of_one(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, const BlockPair& p, int j,
                  const NextBlock& next) {
  w.group_chunks == 4 ? block_of_one<FourBits, FloatScales, 4>(w, x, t, p, j, next)
                      : block_of_one<FourBits, FloatScales, 0>(w, x, t, p, j, next);
}

void one_row(const PackedMatrix& w, const RoundedRows& x, std::int64_t t, const BlockPair& p) {
  const bool two = p.blocks[1] >= 0;
  for (int j = 0; j < (two ? 2 : 1); ++j) {
    const NextBlock next = two && j == 0 ? block_of(w, p.blocks[1]) : p.next[0];
    if (w.four_bits) {
      w.float_scales ? block_of_one<true, true>(w, x, t, p, j, next) : block_of_one<true, false>(w, x, t, p, j, next);
    } else {
      w.float_scales ? block_of_one<false, true>(w, x, t, p, j, next) : block_of_one<false, false>(w, x, t, p, j, next);
    }
  }
}

void int8_pair(const PackedMatrix& w, const RoundedRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  const bool two = p.blocks[1] >= 0;
  if (t1 - t0 == 1) return one_row(w, x, t0, p);
  if (w.four_bits) {
    two ? int8_rows<true, 2>(w, x, t0, t1, p) : int8_rows<true, 1>(w, x, t0, t1, p);
  } else {
    two ? int8_rows<false, 2>(w, x, t0, t1, p) : int8_rows<false, 1>(w, x, t0, t1, p);
  }
}

// Column `column` (0..7) of a chunk for sixteen rows, as floats, its zero taken away.
template <bool FourBits>
__m512 column_of(const std::uint8_t* chunk, int column) {
  const int shift = FourBits ? 8 * (column % 4) + 4 * (column / 4) : 8 * (column % 4);
  const __m512i words = _mm512_loadu_si512(chunk + (FourBits ? 0 : 64 * (column / 4)));
  const __m512i codes = _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(shift)),
                                         _mm512_set1_epi32(FourBits ? 15 : 255));
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(FourBits ? 8 : 128)));
}

template <bool FourBits, int TT, int NN>
void float_tile(const PackedMatrix& w, const FloatRows& x, std::int64_t t, const BlockPair& p) {
  constexpr std::int64_t chunk_bytes = FourBits ? 64 : 128;
  const float* rows[TT];
  for (int i = 0; i < TT; ++i) rows[i] = x.x + source_row(x.index, t + i) * x.stride;
  __m512 sums[TT][NN];
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  for (std::int64_t group = 0; group < w.groups; ++group) {
    __m512 acc[TT][NN];
    for (int i = 0; i < TT; ++i) {
      for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_setzero_ps();
    }
    const std::int64_t begin = group * w.group_size;
    const std::int64_t end = begin + w.group_size < w.inner ? begin + w.group_size : w.inner;
    std::int64_t chunk = group * w.group_chunks;
    for (std::int64_t k = begin; k < end; k += chunk_columns, ++chunk) {
      const int columns = end - k < chunk_columns ? static_cast<int>(end - k) : static_cast<int>(chunk_columns);
      for (int column = 0; column < columns; ++column) {
        __m512 weights[NN];
        for (int j = 0; j < NN; ++j) {
          weights[j] = column_of<FourBits>(w.codes + (p.blocks[j] * w.chunks + chunk) * chunk_bytes, column);
        }
#pragma GCC unroll 8
        for (int i = 0; i < TT; ++i) {
          const __m512 value = _mm512_set1_ps(rows[i][k + column]);
          for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_fmadd_ps(value, weights[j], acc[i][j]);
        }
      }
    }
    for (int j = 0; j < NN; ++j) {
      const __m512 scale = load_scales(w, p.blocks[j], group);
      for (int i = 0; i < TT; ++i) sums[i][j] = _mm512_fmadd_ps(acc[i][j], scale, sums[i][j]);
    }
  }
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) store(p, j, t + i, sums[i][j]);
  }
}

template <bool FourBits, int NN>
void float_rows(const PackedMatrix& w, const FloatRows& x, std::int64_t t, std::int64_t t1, const BlockPair& p) {
  for (; t + 6 <= t1; t += 6) float_tile<FourBits, 6, NN>(w, x, t, p);
  for (; t + 2 <= t1; t += 2) float_tile<FourBits, 2, NN>(w, x, t, p);
  if (t < t1) float_tile<FourBits, 1, NN>(w, x, t, p);
}

void float_pair(const PackedMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, const BlockPair& p) {
  const bool two = p.blocks[1] >= 0;
  if (w.four_bits) {
    two ? float_rows<true, 2>(w, x, t0, t1, p) : float_rows<true, 1>(w, x, t0, t1, p);
  } else {
    two ? float_rows<false, 2>(w, x, t0, t1, p) : float_rows<false, 1>(w, x, t0, t1, p);
  }
}

// exp by a polynomial on -ln2/2..ln2/2 and a shift of the exponent; the same steps in every file.
__m512 sigmoid(__m512 x) {
  __m512 z = _mm512_sub_ps(_mm512_setzero_ps(), x);
  z = _mm512_max_ps(_mm512_min_ps(z, _mm512_set1_ps(88.0F)), _mm512_set1_ps(-87.0F));
  const __m512 magic = _mm512_set1_ps(12582912.0F);
  const __m512 n = _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(z, _mm512_set1_ps(1.44269504F)), magic), magic);
  __m512 r = _mm512_sub_ps(z, _mm512_mul_ps(n, _mm512_set1_ps(0.693359375F)));
  r = _mm512_sub_ps(r, _mm512_mul_ps(n, _mm512_set1_ps(-2.12194440e-4F)));
  __m512 y = _mm512_set1_ps(1.9875691500e-4F);
  y = _mm512_add_ps(_mm512_mul_ps(y, r), _mm512_set1_ps(1.3981999507e-3F));
  y = _mm512_add_ps(_mm512_mul_ps(y, r), _mm512_set1_ps(8.3334519073e-3F));
  y = _mm512_add_ps(_mm512_mul_ps(y, r), _mm512_set1_ps(4.1665795894e-2F));
  y = _mm512_add_ps(_mm512_mul_ps(y, r), _mm512_set1_ps(1.6666665459e-1F));
  y = _mm512_add_ps(_mm512_mul_ps(y, r), _mm512_set1_ps(5.0000001201e-1F));
  y = _mm512_add_ps(_mm512_mul_ps(y, _mm512_mul_ps(r, r)), _mm512_add_ps(r, _mm512_set1_ps(1.0F)));
  const __m512i exponent = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  y = _mm512_mul_ps(y, _mm512_castsi512_ps(exponent));
  return _mm512_div_ps(_mm512_set1_ps(1.0F), _mm512_add_ps(_mm512_set1_ps(1.0F), y));
}

void silu_and_mul(float* gate, const float* up, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += 16) {
    const __mmask16 lanes = first_lanes(count - i);
    const __m512 x = _mm512_maskz_loadu_ps(lanes, gate + i);
    const __m512 silu = _mm512_mul_ps(x, sigmoid(x));
    _mm512_mask_storeu_ps(gate + i, lanes, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(lanes, up + i)));
  }
}

constexpr QgemmKernels kernels{int8_pair, float_pair, round_groups<Sixteen>, silu_and_mul};

}  // namespace

const QgemmKernels& qgemm_kernels() noexcept { return kernels; }

}  // namespace tusi::avx512
