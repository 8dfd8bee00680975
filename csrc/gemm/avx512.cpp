// AVX-512 (F, BW, DQ, VL). As avx2.cpp with sixteen lanes and masked ends. The BF16 and VNNI dot products are left
// alone on purpose: they would round the activations, which are float32 here.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/avx512_intrinsics.h"
#include "core/lanes_avx512.h"
#include "gemm/gemm.h"

namespace tusi::avx512 {
namespace {

constexpr std::int64_t lanes = 16;

// How sixteen consecutive weights of a row are read, or the first of them (zeros behind), from `start` on.
struct F32Weight {
  using Element = float;
  static __m512 load(const float* start) { return _mm512_loadu_ps(start); }
  static __m512 load_first(const float* start, __mmask16 which) { return _mm512_maskz_loadu_ps(which, start); }
};

struct Bf16Weight {
  using Element = std::uint16_t;
  static __m512 widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static __m512 load(const std::uint16_t* start) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(start)));
  }
  static __m512 load_first(const std::uint16_t* start, __mmask16 which) {
    return widen(_mm256_maskz_loadu_epi16(which, start));
  }
};

// Sums of sixteen lanes are taken in one order everywhere: lane i + 8 to lane i, then i + 4, i + 2, i + 1. Those of
// several vectors are taken together, which saves most of the shuffling, and gives the same bits.

// Quarter q of the result: the sums of lanes i, i + 4, i + 8 and i + 12 of the vector number q.
__m512 quarter_sums(__m512 v0, __m512 v1, __m512 v2, __m512 v3) {
  const __m512 first = _mm512_add_ps(_mm512_shuffle_f32x4(v0, v1, 0x44), _mm512_shuffle_f32x4(v0, v1, 0xEE));
  const __m512 second = _mm512_add_ps(_mm512_shuffle_f32x4(v2, v3, 0x44), _mm512_shuffle_f32x4(v2, v3, 0xEE));
  return _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88), _mm512_shuffle_f32x4(first, second, 0xDD));
}

// Lanes 0 and 1 of each quarter: what lanes i and i + 2 of that quarter of a sum to; lanes 2 and 3: those of b.
__m512 pair_sums(__m512 a, __m512 b) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}

// Lane j of quarter q of the result: the sum of quarter q of the vector number j.
__m512 lane_sums(__m512 v0, __m512 v1, __m512 v2, __m512 v3) {
  const __m512 first = pair_sums(v0, v1), second = pair_sums(v2, v3);
  return _mm512_add_ps(_mm512_shuffle_ps(first, second, 0x88), _mm512_shuffle_ps(first, second, 0xDD));
}

__m128 quarter(__m512 v, int number) {
  switch (number) {
    case 0: return _mm512_castps512_ps128(v);
    case 1: return _mm512_extractf32x4_ps(v, 1);
    case 2: return _mm512_extractf32x4_ps(v, 2);
    default: return _mm512_extractf32x4_ps(v, 3);
  }
}

template <int count>
void store_first(float* to, __m128 v) {
  if constexpr (count == 4) {
    _mm_storeu_ps(to, v);
  } else {
    if constexpr (count == 1) _mm_store_ss(to, v);
    if constexpr (count > 1) _mm_storel_pi(reinterpret_cast<__m64*>(to), v);
    if constexpr (count == 3) _mm_store_ss(to + 2, _mm_movehl_ps(v, v));
  }
}

// Quarter i: of token i's vector number J; zeros where there is none.
template <int J, int TT, int NN>
[[gnu::always_inline]] inline __m512 token_sums(const __m512 (&acc)[TT][NN]) {
  const __m512 zero = _mm512_setzero_ps();
  if constexpr (J >= NN) {
    return zero;
  } else {
    constexpr int last = TT - 1;
    return quarter_sums(acc[0][J], acc[1][J], TT > 2 ? acc[last < 2 ? last : 2][J] : zero, TT > 3 ? acc[last][J] : zero);
  }
}

// Sums J..J + 4 (or to the last of NN) of each of up to four tokens. Inlined by force, or the sums go through memory.
template <int J, int TT, int NN>
[[gnu::always_inline]] inline void store_sums(const __m512 (&acc)[TT][NN], float* out, std::int64_t stride) {
  constexpr int count = NN - J < 4 ? NN - J : 4;
  const __m512 zero = _mm512_setzero_ps();
  if constexpr (TT == 1) {
    const __m512* v = acc[0] + J;
    const __m512 four = quarter_sums(v[0], count > 1 ? v[1] : zero, count > 2 ? v[2] : zero, count > 3 ? v[3] : zero);
    const __m512 two = _mm512_add_ps(four, _mm512_shuffle_ps(four, four, 0x4E));
    const __m512 one = _mm512_add_ps(two, _mm512_shuffle_ps(two, two, 0xB1));
    for (int j = 0; j < count; ++j) _mm_store_ss(out + J + j, quarter(one, j));
  } else {
    const __m512 all = lane_sums(token_sums<J>(acc), token_sums<J + 1>(acc), token_sums<J + 2>(acc),
                                 token_sums<J + 3>(acc));
#pragma GCC unroll 4
    for (int i = 0; i < TT; ++i) store_first<count>(out + i * stride + J, quarter(all, i));
  }
}

template <class W, int TT, int NN>
void micro_tile(const PlainMatrix& matrix, const FloatRows& x, std::int64_t t, std::int64_t n, float* out,
                std::int64_t stride) {
  const std::int64_t inner = matrix.inner;
  const float* rows[TT];
  for (int i = 0; i < TT; ++i) rows[i] = x.x + (x.index == nullptr ? t + i : x.index[t + i]) * x.stride;
  const typename W::Element* w[NN];
  for (int j = 0; j < NN; ++j) w[j] = static_cast<const typename W::Element*>(matrix.values) + (n + j) * inner;
  __m512 acc[TT][NN];
#pragma GCC unroll 4
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_setzero_ps();
  }
  std::int64_t k = 0;
  for (; k + lanes <= inner; k += lanes) {
    __m512 weights[NN];
    for (int j = 0; j < NN; ++j) weights[j] = W::load(w[j] + k);
#pragma GCC unroll 4
    for (int i = 0; i < TT; ++i) {
      const __m512 values = _mm512_loadu_ps(rows[i] + k);
      for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_fmadd_ps(values, weights[j], acc[i][j]);
    }
  }
  if (k < inner) {
    const __mmask16 rest = first_lanes(inner - k);
    __m512 weights[NN];
    for (int j = 0; j < NN; ++j) weights[j] = W::load_first(w[j] + k, rest);
#pragma GCC unroll 4
    for (int i = 0; i < TT; ++i) {
      const __m512 values = _mm512_maskz_loadu_ps(rest, rows[i] + k);
      for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_fmadd_ps(values, weights[j], acc[i][j]);
    }
  }
  store_sums<0>(acc, out + t * stride + n, stride);
  if constexpr (NN > 4) store_sums<4>(acc, out + t * stride + n, stride);
}

// A single token over bfloat16 weights waits for memory alone, which one stream fills better than six side by side: rows
// one by one, asked for ahead over the end of a row, past the larger caches, as nobody reads them again. Of float32
// weights six streams ask for twice the bytes with the same instructions, and a router's rows are too few to be a stream.
constexpr std::int64_t bytes_ahead = 6144;

void one_token(const PlainMatrix& matrix, const FloatRows& x, std::int64_t t, std::int64_t n0, std::int64_t n1,
               float* out, std::int64_t stride) {
  const std::int64_t inner = matrix.inner;
  const float* values = x.x + (x.index == nullptr ? t : x.index[t]) * x.stride;
  for (std::int64_t n = n0; n < n1; ++n) {
    const std::uint16_t* w = static_cast<const std::uint16_t*>(matrix.values) + n * inner;
    __m512 acc[1][1] = {{_mm512_setzero_ps()}};
    std::int64_t k = 0;
    for (; k + 2 * lanes <= inner; k += 2 * lanes) {
      _mm_prefetch(reinterpret_cast<const char*>(w + k) + bytes_ahead, _MM_HINT_NTA);
      acc[0][0] = _mm512_fmadd_ps(_mm512_loadu_ps(values + k), Bf16Weight::load(w + k), acc[0][0]);
      acc[0][0] = _mm512_fmadd_ps(_mm512_loadu_ps(values + k + lanes), Bf16Weight::load(w + k + lanes), acc[0][0]);
    }
    for (; k < inner; k += lanes) {
      const __mmask16 rest = first_lanes(inner - k);
      acc[0][0] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rest, values + k), Bf16Weight::load_first(w + k, rest),
                                  acc[0][0]);
    }
    store_sums<0>(acc, out + t * stride + n, stride);
  }
}

template <class W, int NN>
void row_panel(const PlainMatrix& w, const FloatRows& x, std::int64_t t, std::int64_t t1, std::int64_t n, float* out,
               std::int64_t stride) {
  for (; t + 4 <= t1; t += 4) micro_tile<W, 4, NN>(w, x, t, n, out, stride);
  if (t1 - t == 3) return micro_tile<W, 3, NN>(w, x, t, n, out, stride);
  if (t1 - t == 2) return micro_tile<W, 2, NN>(w, x, t, n, out, stride);
  if (t1 - t == 1) micro_tile<W, 1, NN>(w, x, t, n, out, stride);
}

using Panel = void (*)(const PlainMatrix& w, const FloatRows& x, std::int64_t t, std::int64_t t1, std::int64_t n,
                       float* out, std::int64_t stride);

template <class W>
void tile(const PlainMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, std::int64_t n0, std::int64_t n1,
          float* out, std::int64_t stride) {
  constexpr Panel last[6] = {nullptr,         row_panel<W, 1>, row_panel<W, 2>,
                             row_panel<W, 3>, row_panel<W, 4>, row_panel<W, 5>};
  std::int64_t n = n0;
  for (; n + 6 <= n1; n += 6) row_panel<W, 6>(w, x, t0, t1, n, out, stride);
  if (n < n1) last[n1 - n](w, x, t0, t1, n, out, stride);
}

void bf16_tile(const PlainMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, std::int64_t n0,
               std::int64_t n1, float* out, std::int64_t stride) {
  t1 - t0 == 1 ? one_token(w, x, t0, n0, n1, out, stride) : tile<Bf16Weight>(w, x, t0, t1, n0, n1, out, stride);
}

}  // namespace

GemmTile gemm_tile(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::f32: return tile<F32Weight>;
    case WeightFormat::bf16: return bf16_tile;
  }
  return nullptr;
}

}  // namespace tusi::avx512
