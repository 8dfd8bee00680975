// AVX-512 (F, BW, DQ, VL).
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "attention/attention.h"
#include "core/exp_avx512.h"
#include "core/lanes_avx512.h"

namespace tusi::avx512 {
namespace {

constexpr int lanes = 16;

// Sixteen elements of a stored row, widened.
template <KvFormat F>
__m512 load_sixteen(const KvRows& kv, int j, int h) {
  if constexpr (F == KvFormat::f32) return _mm512_loadu_ps(static_cast<const float*>(kv.rows[j]) + h);
  if constexpr (F == KvFormat::bf16) {
    const std::uint16_t* row = static_cast<const std::uint16_t*>(kv.rows[j]) + h;
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  const std::int8_t* row = static_cast<const std::int8_t*>(kv.rows[j]) + h;
  const __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(kv.scales[j]));
}

template <KvFormat F>
constexpr int item_bytes = F == KvFormat::f32 ? 4 : F == KvFormat::bf16 ? 2 : 1;

// Asks for the cache line with element h of a row that comes later, if one begins there. Inlined by force: GCC takes a
// function that does nothing else for one without effects, and leaves its calls out.
template <KvFormat F>
[[gnu::always_inline]] inline void fetch_next(const KvRows& kv, int j, int h) {
  if (j < kv.next_count && h < kv.head_dim && h * item_bytes<F> % 64 == 0) {
    _mm_prefetch(static_cast<const char*>(kv.next[j]) + h * item_bytes<F>, _MM_HINT_T0);
  }
}

// Where the head ends within the sixteen: a copy with zeros behind it is read instead.
template <KvFormat F>
__m512 load_end(const KvRows& kv, int j, int h) {
  constexpr int item = item_bytes<F>;
  char copy[lanes * item] = {};
  __builtin_memcpy(copy, static_cast<const char*>(kv.rows[j]) + h * item,
                   static_cast<unsigned long>((kv.head_dim - h) * item));
  const void* row = copy;
  return load_sixteen<F>({&row, kv.scales + j, 1, lanes, lanes, F, nullptr, 0}, 0, 0);
}

template <KvFormat F>
__m512 load(const KvRows& kv, int j, int h) {
  if (h + lanes <= kv.head_dim) return load_sixteen<F>(kv, j, h);
  return h < kv.head_dim ? load_end<F>(kv, j, h) : _mm512_setzero_ps();
}

// Rows become columns.
void transpose(__m512 (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  const auto low = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  for (int i = 0; i < 16; i += 4) {
    r[i] = low(t[i], t[i + 2]);
    r[i + 1] = high(t[i], t[i + 2]);
    r[i + 2] = low(t[i + 1], t[i + 3]);
    r[i + 3] = high(t[i + 1], t[i + 3]);
  }
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xDD);
    const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88), e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xDD);
    t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(a, d, 0xDD);
    t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xDD);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Sixteen keys from j on, elements h to h + 16.
template <KvFormat F>
void pack_square(const KvRows& kv, int j, int h, float* tile) {
  __m512 r[16];
  for (int i = 0; i < 16; ++i) fetch_next<F>(kv, j + i, h);
  for (int i = 0; i < 16; ++i) r[i] = j + i < kv.count ? load<F>(kv, j + i, h) : _mm512_setzero_ps();
  transpose(r);
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(tile + (h + i) * key_tile + j, r[i]);
}

// Two bfloat16 are turned as one number, and widened afterwards: half the shuffles.
void pack_bf16_pairs(const KvRows& kv, int j, int h, float* tile) {
  __m512 r[16];
  for (int i = 0; i < 16; ++i) fetch_next<KvFormat::bf16>(kv, j + i, h);
  for (int i = 0; i < 16; ++i) {
    r[i] = j + i < kv.count ? _mm512_loadu_ps(static_cast<const std::uint16_t*>(kv.rows[j + i]) + h)
                            : _mm512_setzero_ps();
  }
  transpose(r);
  for (int i = 0; i < 16; ++i) {
    const __m512i pair = _mm512_castps_si512(r[i]);
    float* even = tile + (h + 2 * i) * key_tile + j;
    _mm512_storeu_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
    _mm512_storeu_ps(even + key_tile,
                     _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)))));
  }
}

template <KvFormat F>
void pack_keys_of(const KvRows& kv, float* tile) {
  for (int j = 0; j < kv.count; j += lanes) {
    int h = 0;
    if constexpr (F == KvFormat::bf16) {
      for (; h + 2 * lanes <= kv.head_dim; h += 2 * lanes) pack_bf16_pairs(kv, j, h, tile);
    }
    for (; h < kv.width; h += lanes) pack_square<F>(kv, j, h, tile);
  }
}

template <KvFormat F>
void pack_values_of(const KvRows& kv, float* tile) {
  for (int j = 0; j < kv.count; ++j) {
    for (int h = 0; h < kv.width; h += lanes) {
      fetch_next<F>(kv, j, h);
      _mm512_storeu_ps(tile + j * kv.width + h, load<F>(kv, j, h));
    }
  }
}

void pack_keys(const KvRows& kv, float* tile) {
  switch (kv.format) {
    case KvFormat::f32: return pack_keys_of<KvFormat::f32>(kv, tile);
    case KvFormat::bf16: return pack_keys_of<KvFormat::bf16>(kv, tile);
    case KvFormat::int8: return pack_keys_of<KvFormat::int8>(kv, tile);
  }
}

void pack_values(const KvRows& kv, float* tile) {
  switch (kv.format) {
    case KvFormat::f32: return pack_values_of<KvFormat::f32>(kv, tile);
    case KvFormat::bf16: return pack_values_of<KvFormat::bf16>(kv, tile);
    case KvFormat::int8: return pack_values_of<KvFormat::int8>(kv, tile);
  }
}

// RR rows by KK vectors of keys.
template <int RR, int KK>
void score_block(const float* q, const float* tile, float* s, int width, __m512 scale) {
  __m512 acc[RR][KK];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < KK; ++c) acc[r][c] = _mm512_setzero_ps();
  }
  for (int h = 0; h < width; ++h) {
    __m512 key[KK];
    for (int c = 0; c < KK; ++c) key[c] = _mm512_loadu_ps(tile + h * key_tile + c * lanes);
    for (int r = 0; r < RR; ++r) {
      const __m512 query = _mm512_set1_ps(q[r * width + h]);
      for (int c = 0; c < KK; ++c) acc[r][c] = _mm512_fmadd_ps(query, key[c], acc[r][c]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < KK; ++c) _mm512_storeu_ps(s + r * key_span + c * lanes, _mm512_mul_ps(acc[r][c], scale));
  }
}

template <int KK>
void score_rows(const float* q, const float* tile, float* s, int rows, int width, __m512 scale) {
  int r = 0;
  for (; r + 6 <= rows; r += 6) score_block<6, KK>(q + r * width, tile, s + r * key_span, width, scale);
  q += r * width;
  s += r * key_span;
  switch (rows - r) {
    case 1: return score_block<1, KK>(q, tile, s, width, scale);
    case 2: return score_block<2, KK>(q, tile, s, width, scale);
    case 3: return score_block<3, KK>(q, tile, s, width, scale);
    case 4: return score_block<4, KK>(q, tile, s, width, scale);
    case 5: return score_block<5, KK>(q, tile, s, width, scale);
    default: return;
  }
}

void scores(const float* q, const float* tile, float* s, int rows, int keys, int width, float scale) {
  const __m512 scales = _mm512_set1_ps(scale);
  switch (keys / lanes) {
    case 1: return score_rows<1>(q, tile, s, rows, width, scales);
    case 2: return score_rows<2>(q, tile, s, rows, width, scales);
    case 3: return score_rows<3>(q, tile, s, rows, width, scales);
    default: return score_rows<4>(q, tile, s, rows, width, scales);
  }
}

SpanSum softmax(float* s, int valid, int keys) {
  for (int j = valid; j < keys; ++j) s[j] = -__builtin_inff();
  __m512 most = _mm512_set1_ps(-__builtin_inff());
  for (int j = 0; j < keys; j += lanes) most = _mm512_max_ps(_mm512_loadu_ps(s + j), most);  // NaN is passed over
  const float largest = largest_lane(most);
  const __m512 shift = _mm512_set1_ps(largest);
  __m512 added = _mm512_setzero_ps();
  for (int j = 0; j < keys; j += lanes) {
    const __m512 p = exp_of_negative(_mm512_sub_ps(_mm512_loadu_ps(s + j), shift));
    _mm512_storeu_ps(s + j, p);
    added = _mm512_add_ps(added, p);
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

// RR rows by four vectors of columns from h on, straight from the stored rows.
template <KvFormat F, int RR>
void accumulate_stored(const float* p, const KvRows& kv, float* part, int h, int columns) {
  constexpr int CC = 4;
  __m512 sums[RR][CC];
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < columns; ++c) sums[r][c] = _mm512_loadu_ps(part + r * kv.width + h + c * lanes);
  }
  for (int j = 0; j < kv.count; ++j) {
    for (int c = 0; c < columns; ++c) fetch_next<F>(kv, j, h + c * lanes);
    __m512 value[CC];
    for (int c = 0; c < columns; ++c) value[c] = load_sixteen<F>(kv, j, h + c * lanes);
    for (int r = 0; r < RR; ++r) {
      const __m512 weight = _mm512_set1_ps(p[r * key_span + j]);
      for (int c = 0; c < columns; ++c) sums[r][c] = _mm512_fmadd_ps(weight, value[c], sums[r][c]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    for (int c = 0; c < columns; ++c) _mm512_storeu_ps(part + r * kv.width + h + c * lanes, sums[r][c]);
  }
}

template <KvFormat F, int RR>
void accumulate_rows(const float* p, const KvRows& kv, float* part) {
  int h = 0;
  for (; h + 4 * lanes <= kv.width; h += 4 * lanes) accumulate_stored<F, RR>(p, kv, part, h, 4);
  if (h < kv.width) accumulate_stored<F, RR>(p, kv, part, h, (kv.width - h) / lanes);
}

template <KvFormat F>
void accumulate_few_of(const float* p, const KvRows& kv, float* part, int rows) {
  switch (rows) {
    case 1: return accumulate_rows<F, 1>(p, kv, part);
    case 2: return accumulate_rows<F, 2>(p, kv, part);
    case 3: return accumulate_rows<F, 3>(p, kv, part);
    case 4: return accumulate_rows<F, 4>(p, kv, part);
    default: return accumulate_rows<F, 5>(p, kv, part);
  }
}

void accumulate_few(const float* p, const KvRows& kv, float* part, int rows) {
  switch (kv.format) {
    case KvFormat::f32: return accumulate_few_of<KvFormat::f32>(p, kv, part, rows);
    case KvFormat::bf16: return accumulate_few_of<KvFormat::bf16>(p, kv, part, rows);
    case KvFormat::int8: return accumulate_few_of<KvFormat::int8>(p, kv, part, rows);
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

const AttentionKernels attention_kernels = {pack_keys, pack_values, scores, softmax, accumulate, accumulate_few, merge};

}  // namespace tusi::avx512
