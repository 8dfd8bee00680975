// AVX-512 (F, BW, DQ, VL). As avx2.cpp with sixteen lanes and masked ends. The BF16 and VNNI dot products are left
// alone on purpose: they would round the activations, which are float32 here.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/avx512_intrinsics.h"
#include "gemm/gemm.h"

namespace tusi::avx512 {
namespace {

constexpr std::int64_t lanes = 16;

// How sixteen consecutive weights of a row are read. `start` is the row's first element, k a column; load() is called
// with k such that k + 16 columns exist, one() with any k.
struct F32Weight {
  using Element = float;
  static __m512 load(const float* start, std::int64_t k) { return _mm512_loadu_ps(start + k); }
  static float one(const float* start, std::int64_t k) { return start[k]; }
};

struct Bf16Weight {
  using Element = std::uint16_t;
  static __m512 load(const std::uint16_t* start, std::int64_t k) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + k));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static float one(const std::uint16_t* start, std::int64_t k) {
    const std::uint32_t word = static_cast<std::uint32_t>(start[k]) << 16;
    float value;
    __builtin_memcpy(&value, &word, sizeof(value));
    return value;
  }
};

float sum_lanes(__m512 v) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), high);
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// `count` (1..16) floats and zeros after them.
__m512 load_some(const float* from, std::int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1U), from);
}

template <class W>
__m512 load_some_weights(const typename W::Element* start, std::int64_t k, std::int64_t count) {
  float widened[lanes] = {};
  for (std::int64_t i = 0; i < count; ++i) widened[i] = W::one(start, k + i);
  return _mm512_loadu_ps(widened);
}

template <class W, int TT, int NN>
void micro_tile(const GemmArgs& a, std::int64_t t, std::int64_t n) {
  const float* x = a.x + t * a.inner;
  const typename W::Element* w[NN];
  for (int j = 0; j < NN; ++j) {
    w[j] = static_cast<const typename W::Element*>(a.weight) + (n + j) * a.inner;
  }
  __m512 acc[TT][NN];
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_setzero_ps();
  }
  const auto multiply = [&](const __m512(&weights)[NN], int i, __m512 values) {
    for (int j = 0; j < NN; ++j) acc[i][j] = _mm512_fmadd_ps(values, weights[j], acc[i][j]);
  };
  std::int64_t k = 0;
  __m512 weights[NN];
  for (; k + lanes <= a.inner; k += lanes) {
    for (int j = 0; j < NN; ++j) weights[j] = W::load(w[j], k);
    for (int i = 0; i < TT; ++i) multiply(weights, i, _mm512_loadu_ps(x + i * a.inner + k));
  }
  if (k < a.inner) {
    const std::int64_t count = a.inner - k;
    for (int j = 0; j < NN; ++j) weights[j] = load_some_weights<W>(w[j], k, count);
    for (int i = 0; i < TT; ++i) multiply(weights, i, load_some(x + i * a.inner + k, count));
  }
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) a.out[(t + i) * a.rows + n + j] = sum_lanes(acc[i][j]);
  }
}

template <class W, int NN>
void row_panel(const GemmArgs& a, std::int64_t t, std::int64_t t1, std::int64_t n) {
  for (; t + 4 <= t1; t += 4) micro_tile<W, 4, NN>(a, t, n);
  for (; t < t1; ++t) micro_tile<W, 1, NN>(a, t, n);
}

template <class W>
void tile(const GemmArgs& a, std::int64_t t0, std::int64_t t1, std::int64_t n0, std::int64_t n1) {
  std::int64_t n = n0;
  for (; n + 6 <= n1; n += 6) row_panel<W, 6>(a, t0, t1, n);
  for (; n < n1; ++n) row_panel<W, 1>(a, t0, t1, n);
}

}  // namespace

GemmTile gemm_tile(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::f32: return tile<F32Weight>;
    case WeightFormat::bf16: return tile<Bf16Weight>;
  }
  return nullptr;
}

}  // namespace tusi::avx512
