#include "gemm/driver.h"

#include <algorithm>

#include "core/scratch.h"
#include "core/thread_pool.h"
#include "norm/norm.h"

namespace tusi {
namespace {

// A block of x is read once for every few rows of the weight, so it should stay in the second-level cache.
constexpr std::int64_t x_block_bytes = 256 * 1024;
constexpr std::int64_t max_block_tokens = 64;
// Rows a thread takes at a time: a multiple of every tile's height, small enough to share a narrow matrix fairly.
constexpr std::int64_t tile_rows = 6, most_rows_at_a_time = 48;
// Below this many multiplications waking another thread costs more than it gives.
constexpr std::int64_t serial_work = 64 * 1024;

// Rows t0..t1 of the result, columns n0..n1, with bias and addition.
void finished_tile(const GemmArgs& a, GemmTile tile, std::int64_t t0, std::int64_t t1, std::int64_t n0,
                   std::int64_t n1) {
  const FloatRows x{a.x, a.weight.inner, nullptr};
  if (a.bias == nullptr && !a.add) return tile(a.weight, x, t0, t1, n0, n1, a.out, a.weight.rows);
  thread_local Scratch scratch;
  const std::int64_t stride = n1 - n0;
  float* product = scratch.take<float>((t1 - t0) * stride);
  // The kernel counts rows from 0, the scratch from t0 and n0.
  tile(a.weight, x, t0, t1, n0, n1, product - t0 * stride - n0, stride);
  for (std::int64_t t = t0; t < t1; ++t, product += stride) {
    float* out = a.out + t * a.weight.rows + n0;
    for (std::int64_t n = 0; n < stride; ++n) {
      const float value = a.bias == nullptr ? product[n] : product[n] + a.bias[n0 + n];
      out[n] = a.add ? out[n] + value : value;
    }
  }
}

// A router is 64 rows and one token: taken 48 at a time one thread would read three quarters of it.
std::int64_t rows_at_a_time(std::int64_t rows, std::int64_t token_blocks) {
  const std::int64_t fair = rows * token_blocks / (4 * num_threads());
  return std::clamp(fair / tile_rows * tile_rows, tile_rows, most_rows_at_a_time);
}

}  // namespace

GemmTile select_gemm_tile(WeightFormat format, Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa == Isa::avx512) return avx512::gemm_tile(format);
  if (isa == Isa::avx2) return avx2::gemm_tile(format);
#endif
  (void)isa;
  return generic::gemm_tile(format);
}

PlainMatrix rows_from(const PlainMatrix& w, std::int64_t first) noexcept {
  const std::int64_t row_bytes = w.inner * (w.format == WeightFormat::f32 ? 4 : 2);
  return {static_cast<const char*>(w.values) + first * row_bytes, w.rows - first, w.inner, w.format};
}

std::int64_t tokens_at_a_time(std::int64_t inner) noexcept {
  const std::int64_t fitting = x_block_bytes / (std::max<std::int64_t>(inner, 1) * 4) / 4 * 4;
  return std::clamp<std::int64_t>(fitting, 4, max_block_tokens);
}

void gemm(const GemmArgs& args, GemmTile tile) {
  GemmArgs a = args;
  const std::int64_t rows = a.weight.rows, inner = a.weight.inner;
  if (a.tokens == 0 || rows == 0) return;
  thread_local Scratch normed;
  if (a.norm_weight != nullptr) {
    float* values = normed.take<float>(a.tokens * inner);
    rms_norm({a.x, a.norm_weight, nullptr, values, a.tokens, inner, a.eps});
    a.x = values;
  }
  const std::int64_t block_tokens = tokens_at_a_time(inner);
  const std::int64_t token_blocks = (a.tokens + block_tokens - 1) / block_tokens;
  const std::int64_t step = rows_at_a_time(rows, token_blocks);
  const std::int64_t row_blocks = (rows + step - 1) / step;
  parallel_if(a.tokens * rows * inner > serial_work, row_blocks * token_blocks, [&](std::int64_t item) {
    const std::int64_t t0 = item / row_blocks * block_tokens;
    const std::int64_t n0 = item % row_blocks * step;
    finished_tile(a, tile, t0, std::min(t0 + block_tokens, a.tokens), n0, std::min(n0 + step, rows));
  });
}

}  // namespace tusi
