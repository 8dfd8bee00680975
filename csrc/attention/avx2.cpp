// AVX2 and FMA.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "attention/attention.h"
#include "attention/fetcher.h"
#include "core/exp_avx2.h"
#include "core/lanes_avx2.h"

namespace tusi::avx2 {
namespace {

constexpr int lanes = 8;

// Eight stored elements from the one at `at` on, widened.
template <KvFormat F>
__m256 load_eight(const void* from, std::int64_t at) {
  if constexpr (F == KvFormat::f32) return _mm256_loadu_ps(static_cast<const float*>(from) + at);
  if constexpr (F == KvFormat::bf16) {
    const std::uint16_t* bits = static_cast<const std::uint16_t*>(from) + at;
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bits));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
  }
  const std::int8_t* bytes = static_cast<const std::int8_t*>(from) + at;
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
}

// Eight elements of a row from h on, zero beyond its end: there a copy with zeros behind it is read instead.
template <KvFormat F>
__m256 load_row(const void* row, int h, int head_dim) {
  if (h + lanes <= head_dim) return load_eight<F>(row, h);
  if (h >= head_dim) return _mm256_setzero_ps();
  constexpr int item = F == KvFormat::f32 ? 4 : F == KvFormat::bf16 ? 2 : 1;
  char copy[lanes * item] = {};
  __builtin_memcpy(copy, static_cast<const char*>(row) + h * item, static_cast<unsigned long>((head_dim - h) * item));
  return load_eight<F>(copy, 0);
}

// Rows become columns.
void transpose(__m256 (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

void turn_keys(const float* rows, std::int64_t stride, int count, int head_dim, int width, float* tile) {
  const int padded = (count + key_group - 1) / key_group * key_group;
  for (int j = 0; j < padded; j += lanes) {
    for (int h = 0; h < width; h += lanes) {
      __m256 r[8];
      for (int i = 0; i < 8; ++i) {
        const bool exists = j + i < count;
        r[i] = exists ? load_row<KvFormat::f32>(rows + (j + i) * stride, h, head_dim) : _mm256_setzero_ps();
      }
      transpose(r);
      for (int i = 0; i < 8; ++i) _mm256_storeu_ps(tile + (h + i) * key_tile + j, r[i]);
    }
  }
}

template <KvFormat F>
void pack_values_of(const ValueTile& values, const Ahead& next, float* tile) {
  Fetcher fetch(next, values.count);
  for (int j = 0; j < values.count; ++j) {
    fetch();
    for (int h = 0; h < values.width; h += lanes) {
      _mm256_storeu_ps(tile + j * values.width + h, load_row<F>(values.rows[j], h, values.head_dim));
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

// RR rows by the keys of one group.
template <KvFormat F, int RR>
void score_block(const float* q, const KeyTile& keys, int group, const Ahead& next, float* s, int width, float scale) {
  const void* from = keys.groups[group];
  __m256 acc[RR][2];
  for (int r = 0; r < RR; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
  Fetcher fetch(next, keys.head_dim);
  for (int h = 0; h < keys.head_dim; ++h) {
    fetch();
    const __m256 k0 = load_eight<F>(from, h * keys.stride), k1 = load_eight<F>(from, h * keys.stride + lanes);
    for (int r = 0; r < RR; ++r) {
      const __m256 query = _mm256_set1_ps(q[r * width + h]);
      acc[r][0] = _mm256_fmadd_ps(query, k0, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(query, k1, acc[r][1]);
    }
  }
  for (int c = 0; c < 2; ++c) {
    const int j = group * key_group + c * lanes;
    __m256 factor = _mm256_set1_ps(scale);
    if constexpr (F == KvFormat::int8) factor = _mm256_mul_ps(factor, _mm256_loadu_ps(keys.scales + j));
    for (int r = 0; r < RR; ++r) _mm256_storeu_ps(s + r * key_span + j, _mm256_mul_ps(acc[r][c], factor));
  }
}

template <KvFormat F>
void scores_of(const float* q, const KeyTile& keys, const Ahead& next, float* s, int rows, int width, float scale) {
  const Ahead none{};
  for (int g = 0; g * key_group < keys.count; ++g) {
    const auto ahead = [&](int row) -> const Ahead& { return g == 0 && row == 0 ? next : none; };
    int r = 0;
    for (; r + 6 <= rows; r += 6) {
      score_block<F, 6>(q + r * width, keys, g, ahead(r), s + r * key_span, width, scale);
    }
    for (; r + 3 <= rows; r += 3) {
      score_block<F, 3>(q + r * width, keys, g, ahead(r), s + r * key_span, width, scale);
    }
    for (; r < rows; ++r) score_block<F, 1>(q + r * width, keys, g, ahead(r), s + r * key_span, width, scale);
  }
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
  __m256 most = _mm256_set1_ps(-__builtin_inff());
  for (int j = 0; j < keys; j += lanes) most = _mm256_max_ps(_mm256_loadu_ps(s + j), most);  // NaN is passed over
  const float largest = largest_lane(most);
  const __m256 shift = _mm256_set1_ps(largest);
  __m256 added = _mm256_setzero_ps();
  for (int j = 0; j < keys; j += lanes) {
    const __m256 p = exp_of_negative(_mm256_sub_ps(_mm256_loadu_ps(s + j), shift));
    added = _mm256_add_ps(added, p);
    _mm256_storeu_ps(s + j, scales == nullptr ? p : _mm256_mul_ps(p, _mm256_loadu_ps(scales + j)));
  }
  return {largest, sum_lanes(added)};
}

// RR rows by 16 columns.
template <int RR>
void accumulate_block(const float* p, const float* v, float* part, int keys, int width) {
  __m256 sums[RR][2];
  for (int r = 0; r < RR; ++r) {
    sums[r][0] = _mm256_loadu_ps(part + r * width);
    sums[r][1] = _mm256_loadu_ps(part + r * width + lanes);
  }
  for (int j = 0; j < keys; ++j) {
    const __m256 v0 = _mm256_loadu_ps(v + j * width), v1 = _mm256_loadu_ps(v + j * width + lanes);
    for (int r = 0; r < RR; ++r) {
      const __m256 weight = _mm256_set1_ps(p[r * key_span + j]);
      sums[r][0] = _mm256_fmadd_ps(weight, v0, sums[r][0]);
      sums[r][1] = _mm256_fmadd_ps(weight, v1, sums[r][1]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    _mm256_storeu_ps(part + r * width, sums[r][0]);
    _mm256_storeu_ps(part + r * width + lanes, sums[r][1]);
  }
}

void accumulate(const float* p, const float* tile, float* part, int rows, int keys, int width) {
  for (int h = 0; h < width; h += 2 * lanes) {
    int r = 0;
    for (; r + 6 <= rows; r += 6) accumulate_block<6>(p + r * key_span, tile + h, part + r * width + h, keys, width);
    for (; r + 3 <= rows; r += 3) accumulate_block<3>(p + r * key_span, tile + h, part + r * width + h, keys, width);
    for (; r < rows; ++r) accumulate_block<1>(p + r * key_span, tile + h, part + r * width + h, keys, width);
  }
}

void merge(const float* part, SpanSum span, float* out, SpanSum* total, int width) {
  const float largest = span.max > total->max ? span.max : total->max;
  const float before = exp_of_negative(total->max - largest), now = exp_of_negative(span.max - largest);
  for (int h = 0; h < width; h += lanes) {
    const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(out + h), _mm256_set1_ps(before));
    _mm256_storeu_ps(out + h, _mm256_fmadd_ps(_mm256_loadu_ps(part + h), _mm256_set1_ps(now), old));
  }
  total->sum = total->sum * before + span.sum * now;
  total->max = largest;
}

}  // namespace

const AttentionKernels attention_kernels = {turn_keys, scores, softmax, pack_values, accumulate, nullptr, merge};

}  // namespace tusi::avx2
