// Portable C++. A few weight rows are widened into a buffer, one stretch of K at a time, and met with every token.
#include <cstring>

#include "gemm/gemm.h"

namespace tusi::generic {
namespace {

constexpr std::int64_t stretch = 512;  // of K; a multiple of `lanes`
constexpr int lanes = 8;               // independent partial sums, so that a compiler may use vector registers
constexpr int tile_rows = 4;

float widen_bf16(std::uint16_t bits) {
  const std::uint32_t word = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

void widen_row(const PlainMatrix& w, std::int64_t n, std::int64_t k0, std::int64_t count, float* out) {
  switch (w.format) {
    case WeightFormat::f32:
      std::memcpy(out, static_cast<const float*>(w.values) + n * w.inner + k0, static_cast<std::size_t>(count) * 4);
      return;
    case WeightFormat::bf16: {
      const std::uint16_t* row = static_cast<const std::uint16_t*>(w.values) + n * w.inner + k0;
      for (std::int64_t i = 0; i < count; ++i) out[i] = widen_bf16(row[i]);
      return;
    }
  }
}

// One token against `tile_rows` widened rows. Missing elements of the last step of eight are zeros in both buffers.
void dot_rows(const float* x, const float (&w)[tile_rows][stretch], std::int64_t count, float (&sums)[tile_rows]) {
  float acc[tile_rows][lanes] = {};
  for (std::int64_t k = 0; k < count; k += lanes) {
    for (int r = 0; r < tile_rows; ++r) {
      for (int l = 0; l < lanes; ++l) acc[r][l] += x[k + l] * w[r][k + l];
    }
  }
  for (int r = 0; r < tile_rows; ++r) {
    const float* s = acc[r];
    sums[r] = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
  }
}

void tile(const PlainMatrix& w, const FloatRows& x, std::int64_t t0, std::int64_t t1, std::int64_t n0, std::int64_t n1,
          float* out, std::int64_t stride) {
  float widened[tile_rows][stretch];
  float padded[stretch];
  if (w.inner == 0) {
    for (std::int64_t t = t0; t < t1; ++t) {
      for (std::int64_t n = n0; n < n1; ++n) out[t * stride + n] = 0.0F;
    }
  }
  for (std::int64_t n = n0; n < n1; n += tile_rows) {
    const int rows = static_cast<int>(n1 - n < tile_rows ? n1 - n : tile_rows);
    for (std::int64_t k0 = 0; k0 < w.inner; k0 += stretch) {
      const std::int64_t count = w.inner - k0 < stretch ? w.inner - k0 : stretch;
      const std::int64_t rounded = (count + lanes - 1) / lanes * lanes;
      for (int r = 0; r < tile_rows; ++r) {
        if (r < rows) widen_row(w, n + r, k0, count, widened[r]);
        for (std::int64_t k = r < rows ? count : 0; k < rounded; ++k) widened[r][k] = 0.0F;
      }
      for (std::int64_t t = t0; t < t1; ++t) {
        const float* from = x.x + (x.index == nullptr ? t : x.index[t]) * x.stride + k0;
        if (rounded != count) {
          std::memcpy(padded, from, static_cast<std::size_t>(count) * 4);
          for (std::int64_t k = count; k < rounded; ++k) padded[k] = 0.0F;
          from = padded;
        }
        float sums[tile_rows];
        dot_rows(from, widened, rounded, sums);
        float* to = out + t * stride + n;
        for (int r = 0; r < rows; ++r) to[r] = k0 == 0 ? sums[r] : to[r] + sums[r];
      }
    }
  }
}

}  // namespace

GemmTile gemm_tile(WeightFormat) noexcept { return tile; }

}  // namespace tusi::generic
