// AVX2 and FMA.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "attention/attention.h"
#include "core/exp_avx2.h"
#include "core/lanes_avx2.h"

namespace tusi::avx2 {
namespace {

constexpr int lanes = 8;

// Eight elements of a stored row, widened.
template <KvFormat F>
__m256 load_eight(const KvRows& kv, int j, int h) {
  if constexpr (F == KvFormat::f32) return _mm256_loadu_ps(static_cast<const float*>(kv.rows[j]) + h);
  if constexpr (F == KvFormat::bf16) {
    const std::uint16_t* row = static_cast<const std::uint16_t*>(kv.rows[j]) + h;
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  const std::int8_t* row = static_cast<const std::int8_t*>(kv.rows[j]) + h;
  const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row)));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(kv.scales[j]));
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

// Where the head ends within the eight: a copy with zeros behind it is read instead.
template <KvFormat F>
__m256 load_end(const KvRows& kv, int j, int h) {
  constexpr int item = item_bytes<F>;
  char copy[lanes * item] = {};
  __builtin_memcpy(copy, static_cast<const char*>(kv.rows[j]) + h * item,
                   static_cast<unsigned long>((kv.head_dim - h) * item));
  const void* row = copy;
  return load_eight<F>({&row, kv.scales + j, 1, lanes, lanes, F, nullptr, 0}, 0, 0);
}

template <KvFormat F>
__m256 load(const KvRows& kv, int j, int h) {
  if (h + lanes <= kv.head_dim) return load_eight<F>(kv, j, h);
  return h < kv.head_dim ? load_end<F>(kv, j, h) : _mm256_setzero_ps();
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

template <KvFormat F>
void pack_keys_of(const KvRows& kv, float* tile) {
  const int padded = (kv.count + 15) / 16 * 16;
  for (int j = 0; j < padded; j += lanes) {
    for (int h = 0; h < kv.width; h += lanes) {
      __m256 r[8];
      for (int i = 0; i < 8; ++i) fetch_next<F>(kv, j + i, h);
      for (int i = 0; i < 8; ++i) r[i] = j + i < kv.count ? load<F>(kv, j + i, h) : _mm256_setzero_ps();
      transpose(r);
      for (int i = 0; i < 8; ++i) _mm256_storeu_ps(tile + (h + i) * key_tile + j, r[i]);
    }
  }
}

template <KvFormat F>
void pack_values_of(const KvRows& kv, float* tile) {
  for (int j = 0; j < kv.count; ++j) {
    for (int h = 0; h < kv.width; h += lanes) {
      fetch_next<F>(kv, j, h);
      _mm256_storeu_ps(tile + j * kv.width + h, load<F>(kv, j, h));
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

// RR rows by 16 keys.
template <int RR>
void score_block(const float* q, const float* tile, float* s, int width, __m256 scale) {
  __m256 acc[RR][2];
  for (int r = 0; r < RR; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
  for (int h = 0; h < width; ++h) {
    const __m256 k0 = _mm256_loadu_ps(tile + h * key_tile), k1 = _mm256_loadu_ps(tile + h * key_tile + lanes);
    for (int r = 0; r < RR; ++r) {
      const __m256 query = _mm256_set1_ps(q[r * width + h]);
      acc[r][0] = _mm256_fmadd_ps(query, k0, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(query, k1, acc[r][1]);
    }
  }
  for (int r = 0; r < RR; ++r) {
    _mm256_storeu_ps(s + r * key_span, _mm256_mul_ps(acc[r][0], scale));
    _mm256_storeu_ps(s + r * key_span + lanes, _mm256_mul_ps(acc[r][1], scale));
  }
}

void scores(const float* q, const float* tile, float* s, int rows, int keys, int width, float scale) {
  const __m256 scales = _mm256_set1_ps(scale);
  for (int j = 0; j < keys; j += 2 * lanes) {
    int r = 0;
    for (; r + 6 <= rows; r += 6) score_block<6>(q + r * width, tile + j, s + r * key_span + j, width, scales);
    for (; r + 3 <= rows; r += 3) score_block<3>(q + r * width, tile + j, s + r * key_span + j, width, scales);
    for (; r < rows; ++r) score_block<1>(q + r * width, tile + j, s + r * key_span + j, width, scales);
  }
}

SpanSum softmax(float* s, int valid, int keys) {
  for (int j = valid; j < keys; ++j) s[j] = -__builtin_inff();
  __m256 most = _mm256_set1_ps(-__builtin_inff());
  for (int j = 0; j < keys; j += lanes) most = _mm256_max_ps(_mm256_loadu_ps(s + j), most);  // NaN is passed over
  const float largest = largest_lane(most);
  const __m256 shift = _mm256_set1_ps(largest);
  __m256 added = _mm256_setzero_ps();
  for (int j = 0; j < keys; j += lanes) {
    const __m256 p = exp_of_negative(_mm256_sub_ps(_mm256_loadu_ps(s + j), shift));
    _mm256_storeu_ps(s + j, p);
    added = _mm256_add_ps(added, p);
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

const AttentionKernels attention_kernels = {pack_keys, pack_values, scores, softmax, accumulate, nullptr, merge};

}  // namespace tusi::avx2
