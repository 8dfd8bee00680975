// AVX2 and FMA. Weights are widened in registers; a tile of tokens x rows keeps one vector of partial sums a product.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include "core/lanes_avx2.h"
#include "gemm/gemm.h"

namespace tusi::avx2 {
namespace {

constexpr std::int64_t lanes = 8;

// How eight consecutive weights of a row are read. `start` is the row's first element, k a column; load() is called
// with k such that k + 8 columns exist, one() with any k.
struct F32Weight {
  using Element = float;
  static __m256 load(const float* start, std::int64_t k) { return _mm256_loadu_ps(start + k); }
  static float one(const float* start, std::int64_t k) { return start[k]; }
};

struct Bf16Weight {
  using Element = std::uint16_t;
  static __m256 load(const std::uint16_t* start, std::int64_t k) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(start + k));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static float one(const std::uint16_t* start, std::int64_t k) {
    const std::uint32_t word = static_cast<std::uint32_t>(start[k]) << 16;
    float value;
    __builtin_memcpy(&value, &word, sizeof(value));
    return value;
  }
};

// `count` (1..7) floats and zeros after them.
__m256 load_some(const float* from, std::int64_t count) {
  return _mm256_maskload_ps(from, lanes_below(count));
}

template <class W>
__m256 load_some_weights(const typename W::Element* start, std::int64_t k, std::int64_t count) {
  alignas(32) float widened[lanes] = {};
  for (std::int64_t i = 0; i < count; ++i) widened[i] = W::one(start, k + i);
  return _mm256_load_ps(widened);
}

template <class W, int TT, int NN>
void micro_tile(const PlainMatrix& matrix, const FloatRows& x, std::int64_t t, std::int64_t n, float* out,
                std::int64_t stride) {
  const std::int64_t inner = matrix.inner;
  const float* rows[TT];
  for (int i = 0; i < TT; ++i) rows[i] = x.x + (x.index == nullptr ? t + i : x.index[t + i]) * x.stride;
  const typename W::Element* w[NN];
  for (int j = 0; j < NN; ++j) w[j] = static_cast<const typename W::Element*>(matrix.values) + (n + j) * inner;
  __m256 acc[TT][NN];
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) acc[i][j] = _mm256_setzero_ps();
  }
  const auto multiply = [&](const __m256(&weights)[NN], int i, __m256 values) {
    for (int j = 0; j < NN; ++j) acc[i][j] = _mm256_fmadd_ps(values, weights[j], acc[i][j]);
  };
  std::int64_t k = 0;
  __m256 weights[NN];
  for (; k + lanes <= inner; k += lanes) {
    for (int j = 0; j < NN; ++j) weights[j] = W::load(w[j], k);
    for (int i = 0; i < TT; ++i) multiply(weights, i, _mm256_loadu_ps(rows[i] + k));
  }
  if (k < inner) {
    for (int j = 0; j < NN; ++j) weights[j] = load_some_weights<W>(w[j], k, inner - k);
    for (int i = 0; i < TT; ++i) multiply(weights, i, load_some(rows[i] + k, inner - k));
  }
  for (int i = 0; i < TT; ++i) {
    for (int j = 0; j < NN; ++j) out[(t + i) * stride + n + j] = sum_lanes(acc[i][j]);
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

template <class W>
void tile(const PlainMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, std::int64_t n0, std::int64_t n1,
          float* out, std::int64_t stride) {
  std::int64_t n = n0;
  if (t1 - t0 == 1) {
    for (; n + 6 <= n1; n += 6) micro_tile<W, 1, 6>(w, x, t0, n, out, stride);
  }
  for (; n + 3 <= n1; n += 3) row_panel<W, 3>(w, x, t0, t1, n, out, stride);
  if (n1 - n == 2) return row_panel<W, 2>(w, x, t0, t1, n, out, stride);
  if (n1 - n == 1) row_panel<W, 1>(w, x, t0, t1, n, out, stride);
}

}  // namespace

GemmTile gemm_tile(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::f32: return tile<F32Weight>;
    case WeightFormat::bf16: return tile<Bf16Weight>;
  }
  return nullptr;
}

}  // namespace tusi::avx2
