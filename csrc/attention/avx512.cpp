// AVX-512 (F, BW, DQ, VL).
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "attention/attention.h"
#include "attention/fetcher.h"
#include "core/exp_avx512.h"
#include "core/lanes_avx512.h"

namespace tusi::avx512 {
namespace {

constexpr int lanes = 16;

// Sixteen stored elements from the one at `at` on, widened.
template <KvFormat F>
__m512 load_sixteen(const void* from, std::int64_t at) {
  if constexpr (F == KvFormat::f32) return _mm512_loadu_ps(static_cast<const float*>(from) + at);
  if constexpr (F == KvFormat::bf16) {
    const std::uint16_t* bits = static_cast<const std::uint16_t*>(from) + at;
    const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
  }
  const std::int8_t* bytes = static_cast<const std::int8_t*>(from) + at;
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// Where a row ends within the sixteen: a copy with zeros behind it is read instead.
template <KvFormat F>
__m512 load_value(const ValueTile& values, int j, int h) {
  if (h + lanes <= values.head_dim) return load_sixteen<F>(values.rows[j], h);
  if (h >= values.head_dim) return _mm512_setzero_ps();
  constexpr int item = F == KvFormat::f32 ? 4 : F == KvFormat::bf16 ? 2 : 1;
  char copy[lanes * item] = {};
  __builtin_memcpy(copy, static_cast<const char*>(values.rows[j]) + h * item,
                   static_cast<unsigned long>((values.head_dim - h) * item));
  return load_sixteen<F>(copy, 0);
}

void turn_keys(const float* rows, std::int64_t stride, int count, int head_dim, int width, float* tile) {
  for (int j = 0; j < count; j += lanes) {
    for (int h = 0; h < width; h += lanes) {
      __m512 r[16];
      for (int i = 0; i < 16; ++i) {
        r[i] = j + i < count ? load_floats(rows + (j + i) * stride, h, head_dim) : _mm512_setzero_ps();
      }
      transpose(r);
      for (int i = 0; i < 16; ++i) _mm512_storeu_ps(tile + (h + i) * key_tile + j, r[i]);
    }
  }
}

template <KvFormat F>
void pack_values_of(const ValueTile& values, const Ahead& next, float* tile) {
  Fetcher fetch(next, values.count);
  for (int j = 0; j < values.count; ++j) {
    fetch();
    for (int h = 0; h < values.width; h += lanes) {
      _mm512_storeu_ps(tile + j * values.width + h, load_value<F>(values, j, h));
    }
  }
}

void pack_values(const ValueTile& values, const Ahead& next, float* tile) {
  switch (values.format) {
    case KvFormat::f32: return pack_values_of<KvFormat::f32>(values, next, tile);
    case KvFormat::bf16: return pack_values_of<KvFormat::bf16>(values, next, tile);
    case KvFormat::int8: return pack_values_of<KvFormat::int8>(values, next, tile);
  }
}

// RR rows by KK groups of keys.
template <KvFormat F, int RR, int KK>
void score_block(const float* q, const KeyTile& keys, int group, const Ahead& next, float* s, int width, float scale) {
  __m512 acc[RR][KK];
  const void* from[KK];
  for (int c = 0; c < KK; ++c) from[c] = keys.groups[group + c];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < KK; ++c) acc[r][c] = _mm512_setzero_ps();
  }
  Fetcher fetch(next, keys.head_dim);
  for (int h = 0; h < keys.head_dim; ++h) {
    fetch();
    __m512 key[KK];
    for (int c = 0; c < KK; ++c) key[c] = load_sixteen<F>(from[c], h * keys.stride);
    for (int r = 0; r < RR; ++r) {
      const __m512 query = _mm512_set1_ps(q[r * width + h]);
      for (int c = 0; c < KK; ++c) acc[r][c] = _mm512_fmadd_ps(query, key[c], acc[r][c]);
    }
  }
  for (int c = 0; c < KK; ++c) {
    const int j = (group + c) * lanes;
    __m512 factor = _mm512_set1_ps(scale);
    if constexpr (F == KvFormat::int8) factor = _mm512_mul_ps(factor, _mm512_loadu_ps(keys.scales + j));
    for (int r = 0; r < RR; ++r) _mm512_storeu_ps(s + r * key_span + j, _mm512_mul_ps(acc[r][c], factor));
  }
}

template <KvFormat F, int KK>
void score_rows(const float* q, const KeyTile& keys, int group, const Ahead& next, float* s, int rows, int width,
                float scale) {
  const Ahead none{};
  int r = 0;
  for (; r + 6 <= rows; r += 6) {
    score_block<F, 6, KK>(q + r * width, keys, group, r == 0 ? next : none, s + r * key_span, width, scale);
  }
  const Ahead& rest = r == 0 ? next : none;
  q += r * width;
  s += r * key_span;
  switch (rows - r) {
    case 1: return score_block<F, 1, KK>(q, keys, group, rest, s, width, scale);
    case 2: return score_block<F, 2, KK>(q, keys, group, rest, s, width, scale);
    case 3: return score_block<F, 3, KK>(q, keys, group, rest, s, width, scale);
    case 4: return score_block<F, 4, KK>(q, keys, group, rest, s, width, scale);
    case 5: return score_block<F, 5, KK>(q, keys, group, rest, s, width, scale);
    default: return;
  }
}

template <KvFormat F>
void scores_of(const float* q, const KeyTile& keys, const Ahead& next, float* s, int rows, int width, float scale) {
  const int groups = (keys.count + lanes - 1) / lanes;
  if (groups == 4) return score_rows<F, 4>(q, keys, 0, next, s, rows, width, scale);
  const Ahead none{};
  for (int g = 0; g < groups; ++g) score_rows<F, 1>(q, keys, g, g == 0 ? next : none, s, rows, width, scale);
}

void scores(const float* q, const KeyTile& keys, const Ahead& next, float* s, int rows, int width, float scale) {
  switch (keys.format) {
    case KvFormat::f32: return scores_of<KvFormat::f32>(q, keys, next, s, rows, width, scale);
    case KvFormat::bf16: return scores_of<KvFormat::bf16>(q, keys, next, s, rows, width, scale);
    case KvFormat::int8: return scores_of<KvFormat::int8>(q, keys, next, s, rows, width, scale);
  }
}

SpanSum softmax(float* s, const float* scales, int valid, int keys) {
  for (int j = valid; j < keys; ++j) s[j] = -__builtin_inff();
  __m512 most = _mm512_set1_ps(-__builtin_inff());
  for (int j = 0; j < keys; j += lanes) most = _mm512_max_ps(_mm512_loadu_ps(s + j), most);  // NaN is passed over
  const float largest = largest_lane(most);
  const __m512 shift = _mm512_set1_ps(largest);
  __m512 added = _mm512_setzero_ps();
  for (int j = 0; j < keys; j += lanes) {
    const __m512 p = exp_of_negative(_mm512_sub_ps(_mm512_loadu_ps(s + j), shift));
    added = _mm512_add_ps(added, p);
    _mm512_storeu_ps(s + j, scales == nullptr ? p : _mm512_mul_ps(p, _mm512_loadu_ps(scales + j)));
  }
  return {largest, sum_lanes(added)};
}

// RR rows by CC vectors of columns.
template <int RR, int CC>
void accumulate_block(const float* p, const float* v, float* part, int keys, int width) {
  __m512 sums[RR][CC];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < CC; ++c) sums[r][c] = _mm512_loadu_ps(part + r * width + c * lanes);
  }
  for (int j = 0; j < keys; ++j) {
    __m512 value[CC];
    for (int c = 0; c < CC; ++c) value[c] = _mm512_loadu_ps(v + j * width + c * lanes);
    for (int r = 0; r < RR; ++r) {
      const __m512 weight = _mm512_set1_ps(p[r * key_span + j]);
      for (int c = 0; c < CC; ++c) sums[r][c] = _mm512_fmadd_ps(weight, value[c], sums[r][c]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < CC; ++c) _mm512_storeu_ps(part + r * width + c * lanes, sums[r][c]);
  }
}

template <int CC>
void accumulate_columns(const float* p, const float* v, float* part, int rows, int keys, int width) {
  int r = 0;
  for (; r + 5 <= rows; r += 5) accumulate_block<5, CC>(p + r * key_span, v, part + r * width, keys, width);
  p += r * key_span;
  part += r * width;
  switch (rows - r) {
    case 1: return accumulate_block<1, CC>(p, v, part, keys, width);
    case 2: return accumulate_block<2, CC>(p, v, part, keys, width);
    case 3: return accumulate_block<3, CC>(p, v, part, keys, width);
    case 4: return accumulate_block<4, CC>(p, v, part, keys, width);
    default: return;
  }
}

// RR rows by CC vectors of columns from h on, straight from the stored rows.
template <KvFormat F, int RR, int CC>
void accumulate_stored(const float* p, const ValueTile& values, Fetcher& next, float* part, int h) {
  Fetcher fetch = next;
  __m512 sums[RR][CC];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < CC; ++c) sums[r][c] = _mm512_loadu_ps(part + r * values.width + h + c * lanes);
  }
  for (int j = 0; j < values.count; ++j) {
    fetch();
    __m512 value[CC];
    for (int c = 0; c < CC; ++c) value[c] = load_sixteen<F>(values.rows[j], h + c * lanes);
    for (int r = 0; r < RR; ++r) {
      const __m512 weight = _mm512_set1_ps(p[r * key_span + j]);
      for (int c = 0; c < CC; ++c) sums[r][c] = _mm512_fmadd_ps(weight, value[c], sums[r][c]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < CC; ++c) _mm512_storeu_ps(part + r * values.width + h + c * lanes, sums[r][c]);
  }
  next = fetch;
}

template <KvFormat F, int RR>
void accumulate_rows(const float* p, const ValueTile& values, const Ahead& next, float* part) {
  const int columns = values.width / lanes, passes = columns / 4 + columns % 4;
  Fetcher fetch(next, values.count * passes);
  int h = 0;
  for (; h + 4 * lanes <= values.width; h += 4 * lanes) accumulate_stored<F, RR, 4>(p, values, fetch, part, h);
  for (; h < values.width; h += lanes) accumulate_stored<F, RR, 1>(p, values, fetch, part, h);
}

template <KvFormat F>
void accumulate_few_of(const float* p, const ValueTile& values, const Ahead& next, float* part, int rows) {
  switch (rows) {
    case 1: return accumulate_rows<F, 1>(p, values, next, part);
    case 2: return accumulate_rows<F, 2>(p, values, next, part);
    case 3: return accumulate_rows<F, 3>(p, values, next, part);
    case 4: return accumulate_rows<F, 4>(p, values, next, part);
    default: return accumulate_rows<F, 5>(p, values, next, part);
  }
}

void accumulate_few(const float* p, const ValueTile& values, const Ahead& next, float* part, int rows) {
  switch (values.format) {
    case KvFormat::f32: return accumulate_few_of<KvFormat::f32>(p, values, next, part, rows);
    case KvFormat::bf16: return accumulate_few_of<KvFormat::bf16>(p, values, next, part, rows);
    case KvFormat::int8: return accumulate_few_of<KvFormat::int8>(p, values, next, part, rows);
  }
}

void accumulate(const float* p, const float* tile, float* part, int rows, int keys, int width) {
  // 80 columns (the vision tower's heads) are five vectors; other widths go by fours.
  const int step = width % 80 == 0 ? 5 : 4;
  for (int h = 0; h < width; h += step * lanes) {
    const int columns = (width - h) / lanes < step ? (width - h) / lanes : step;
    switch (columns) {
      case 1: accumulate_columns<1>(p, tile + h, part + h, rows, keys, width); break;
      case 2: accumulate_columns<2>(p, tile + h, part + h, rows, keys, width); break;
      case 3: accumulate_columns<3>(p, tile + h, part + h, rows, keys, width); break;
      case 4: accumulate_columns<4>(p, tile + h, part + h, rows, keys, width); break;
      default: accumulate_columns<5>(p, tile + h, part + h, rows, keys, width); break;
    }
  }
}

void merge(const float* part, SpanSum span, float* out, SpanSum* total, int width) {
  const float largest = span.max > total->max ? span.max : total->max;
  const float before = exp_of_negative(total->max - largest), now = exp_of_negative(span.max - largest);
  for (int h = 0; h < width; h += lanes) {
    const __m512 old = _mm512_mul_ps(_mm512_loadu_ps(out + h), _mm512_set1_ps(before));
    _mm512_storeu_ps(out + h, _mm512_fmadd_ps(_mm512_loadu_ps(part + h), _mm512_set1_ps(now), old));
  }
  total->sum = total->sum * before + span.sum * now;
  total->max = largest;
}

}  // namespace

const AttentionKernels attention_kernels = {turn_keys,  scores,         softmax, pack_values,
                                              accumulate, accumulate_few, merge};

}  // namespace tusi::avx512
