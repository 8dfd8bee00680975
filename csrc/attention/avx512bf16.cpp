// AVX-512 with BF16: vdpbf16ps.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "attention/bf16.h"
#include "core/lanes_avx512.h"

namespace tusi::avx512bf16 {
namespace {

using avx512::largest_lane;
using avx512::load_floats;
using avx512::low_half;
using avx512::sum_lanes;
using avx512::transpose;

constexpr int lanes = 16;
constexpr int pairs_in_tile = key_tile / 2;

__m512bh as_bf16(__m512i v) {
  __m512bh bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  return bits;
}

__m512i as_int(__m512bh v) {
  __m512i bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  return bits;
}

__m256i as_int(__m256bh v) {
  __m256i bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  return bits;
}

// 32 floats to 32 bfloat16, in order.
__m512i round_pair(__m512 first, __m512 second) { return as_int(_mm512_cvtne2ps_pbh(second, first)); }

void pack_keys(const float* rows, std::int64_t stride, int count, int head_dim, int width, std::uint16_t* tile) {
  for (int j = 0; j < key_tile; j += lanes) {
    for (int h = 0; h < width; h += 2 * lanes) {
      __m512 r[16];
      for (int i = 0; i < 16; ++i) {
        const float* row = rows + (j + i) * stride;
        r[i] = _mm512_setzero_ps();
        if (j + i >= count) continue;
        const __m512i rounded = round_pair(load_floats(row, h, head_dim), load_floats(row, h + lanes, head_dim));
        r[i] = _mm512_castsi512_ps(rounded);
      }
      transpose(r);
      const int pairs = width - h < 2 * lanes ? (width - h) / 2 : lanes;
      for (int i = 0; i < pairs; ++i) _mm512_storeu_ps(tile + ((h / 2 + i) * key_tile + j) * 2, r[i]);
    }
  }
}

void pack_values(const float* rows, std::int64_t stride, int count, int head_dim, int width, std::uint16_t* tile) {
  for (int j = 0; j < key_tile; j += 2) {
    for (int h = 0; h < width; h += lanes) {
      const __m512 a = j < count ? load_floats(rows + j * stride, h, head_dim) : _mm512_setzero_ps();
      const __m512 b = j + 1 < count ? load_floats(rows + (j + 1) * stride, h, head_dim) : _mm512_setzero_ps();
      const __m512i even = _mm512_cvtepu16_epi32(as_int(_mm512_cvtneps_pbh(a)));
      const __m512i odd = _mm512_cvtepu16_epi32(as_int(_mm512_cvtneps_pbh(b)));
      _mm512_storeu_si512(tile + (j / 2 * width + h) * 2, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
  }
}

void pack_queries(const float* rows, std::int64_t stride, int count, int head_dim, int width, float factor,
                  std::uint16_t* out) {
  for (int r = 0; r < count; ++r) {
    for (int h = 0; h < width; h += lanes) {
      const __m512 q = _mm512_mul_ps(load_floats(rows + r * stride, h, head_dim), _mm512_set1_ps(factor));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * width + h), as_int(_mm512_cvtneps_pbh(q)));
    }
  }
}

// A pair of bfloat16 in every lane.
__m512bh broadcast(const std::uint16_t* pair) {
  int bits;
  __builtin_memcpy(&bits, pair, sizeof(bits));
  return as_bf16(_mm512_set1_epi32(bits));
}

__m512bh load_pairs(const std::uint16_t* from) { return as_bf16(_mm512_loadu_si512(from)); }

// RR rows by the 64 keys of a tile.
template <int RR>
void score_block(const std::uint16_t* q, const std::uint16_t* tile, float* s, int width) {
  __m512 acc[RR][4];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_setzero_ps();
  }
  for (int h = 0; h < width; h += 2) {
    __m512bh key[4];
    for (int c = 0; c < 4; ++c) key[c] = load_pairs(tile + h * key_tile + c * 2 * lanes);
    for (int r = 0; r < RR; ++r) {
      const __m512bh query = broadcast(q + r * width + h);
      for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], query, key[c]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < 4; ++c) _mm512_storeu_ps(s + r * key_span + c * lanes, acc[r][c]);
  }
}

void scores(const std::uint16_t* q, const std::uint16_t* tile, float* s, int rows, int width) {
  int r = 0;
  for (; r + 6 <= rows; r += 6) score_block<6>(q + r * width, tile, s + r * key_span, width);
  q += r * width;
  s += r * key_span;
  switch (rows - r) {
    case 1: return score_block<1>(q, tile, s, width);
    case 2: return score_block<2>(q, tile, s, width);
    case 3: return score_block<3>(q, tile, s, width);
    case 4: return score_block<4>(q, tile, s, width);
    case 5: return score_block<5>(q, tile, s, width);
    default: return;
  }
}

// 2^x for x <= 0, within 3e-6: a polynomial in x - floor(x). 0 for -inf, NaN for NaN. Its result is rounded to 2^-9.
__m512 exp2_of_negative(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 0x09);
  __m512 p = _mm512_set1_ps(0.013534168F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05201146108F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.2414427561F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6930038348F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.000002593F));
  return _mm512_scalef_ps(p, x);
}

// One row of scores to weights relative to the largest score so far; returns the factor of what was summed before.
float softmax(float* s, std::uint16_t* p, int keys, SpanSum* total) {
  for (int j = keys; j % key_tile != 0; ++j) s[j] = -__builtin_inff();
  __m512 most = _mm512_set1_ps(total->max);
  for (int j = 0; j < keys; j += lanes) most = _mm512_max_ps(_mm512_loadu_ps(s + j), most);  // NaN is passed over
  const float largest = largest_lane(most);
  const __m512 shift = _mm512_set1_ps(largest);
  __m512 added = _mm512_setzero_ps();
  for (int j = 0; j < keys; j += 2 * lanes) {
    const __m512 first = exp2_of_negative(_mm512_sub_ps(_mm512_loadu_ps(s + j), shift));
    const __m512 second = exp2_of_negative(_mm512_sub_ps(_mm512_loadu_ps(s + j + lanes), shift));
    _mm512_storeu_si512(p + j, round_pair(first, second));
    added = _mm512_add_ps(added, _mm512_add_ps(first, second));
  }
  const __m512 gap = _mm512_sub_ps(_mm512_set1_ps(total->max), shift);
  const float before = _mm_cvtss_f32(_mm256_castps256_ps128(low_half(exp2_of_negative(gap))));
  // What has not been summed yet needs no factor; 2^0 is 1 to within the polynomial's error only.
  const float factor = total->max == largest ? 1.0F : before;
  total->sum = total->sum * factor + sum_lanes(added);
  total->max = largest;
  return factor;
}

// RR rows by CC vectors of columns: acc = before * acc + p.v over the span.
template <int RR, int CC>
void accumulate_block(const std::uint16_t* p, const std::uint16_t* tiles, const float* before, float* acc, int pairs,
                      int width) {
  __m512 sums[RR][CC];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < CC; ++c) {
      sums[r][c] = _mm512_mul_ps(_mm512_loadu_ps(acc + r * width + c * lanes), _mm512_set1_ps(before[r]));
    }
  }
  for (int j = 0; j < pairs; ++j) {
    __m512bh value[CC];
    for (int c = 0; c < CC; ++c) value[c] = load_pairs(tiles + (j * width + c * lanes) * 2);
    for (int r = 0; r < RR; ++r) {
      const __m512bh weight = broadcast(p + r * key_span + j * 2);
      for (int c = 0; c < CC; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], weight, value[c]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < CC; ++c) _mm512_storeu_ps(acc + r * width + c * lanes, sums[r][c]);
  }
}

template <int CC>
void accumulate_columns(const Bf16Block& b, const std::uint16_t* tiles, int column, int pairs) {
  const std::uint16_t* from = tiles + column * 2;
  float* acc = b.acc + column;
  int r = 0;
  for (; r + 5 <= b.rows; r += 5) {
    accumulate_block<5, CC>(b.p + r * key_span, from, b.before + r, acc + r * b.width, pairs, b.width);
  }
  for (; r < b.rows; ++r) {
    accumulate_block<1, CC>(b.p + r * key_span, from, b.before + r, acc + r * b.width, pairs, b.width);
  }
}

void accumulate(const Bf16Block& b, const std::uint16_t* tiles, int pairs) {
  // 80 columns (the vision tower's heads) are five vectors; other widths go by fours.
  const int step = b.width % 80 == 0 ? 5 : 4;
  for (int column = 0; column < b.width; column += step * lanes) {
    const int columns = (b.width - column) / lanes < step ? (b.width - column) / lanes : step;
    switch (columns) {
      case 1: accumulate_columns<1>(b, tiles, column, pairs); break;
      case 2: accumulate_columns<2>(b, tiles, column, pairs); break;
      case 3: accumulate_columns<3>(b, tiles, column, pairs); break;
      case 4: accumulate_columns<4>(b, tiles, column, pairs); break;
      default: accumulate_columns<5>(b, tiles, column, pairs); break;
    }
  }
}

void attend(const Bf16Block& b) {
  for (int i = 0; i < b.rows * b.width; ++i) b.acc[i] = 0.0F;
  for (int r = 0; r < b.rows; ++r) b.totals[r] = {-__builtin_inff(), 0.0F};
  const std::int64_t tile_size = static_cast<std::int64_t>(key_tile) * b.width;
  for (int k0 = 0; k0 < b.key_count; k0 += key_span) {
    const int keys = b.key_count - k0 < key_span ? b.key_count - k0 : key_span;
    const std::int64_t at = k0 / key_tile * tile_size;
    for (int t = 0; t < keys; t += key_tile) {
      scores(b.q, b.keys + at + t / key_tile * tile_size, b.s + t, b.rows, b.width);
    }
    for (int r = 0; r < b.rows; ++r) {
      b.before[r] = softmax(b.s + r * key_span, b.p + r * key_span, keys, b.totals + r);
    }
    accumulate(b, b.values + at, (keys + 1) / 2);
  }
  for (int r = 0; r < b.rows; ++r) {
    for (int h = 0; h < b.head_dim; ++h) b.out[r * b.out_stride + h] = b.acc[r * b.width + h] / b.totals[r].sum;
  }
}

}  // namespace

const Bf16Attention attention_kernels = {pack_keys, pack_values, pack_queries, attend};

}  // namespace tusi::avx512bf16
