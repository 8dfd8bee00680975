// The steps of the call that touch weights of plain floats.
#include <algorithm>

#include "gemm/driver.h"
#include "moe/call.h"

namespace tusi {
namespace {

// A multiple of every tile's height, small enough to share a narrow expert fairly.
constexpr std::int64_t panel = 48;

}  // namespace

std::int64_t panel_columns(const Experts& experts, const PlainMatrix&) { return std::min(panel, experts.inner); }

void gate_up_tile(const Call& c, const Item& item, const PlainMatrix& w, std::int64_t r0, std::int64_t r1, const Item*,
                  float* gate, float* up) {
  const std::int64_t stride = item.end - item.begin, inner = item.share->experts->inner;
  const std::int64_t step = tokens_at_a_time(w.inner);
  const GemmTile tile = c.kernels.plain(w.format);
  for (std::int64_t r = r0; r < r1; r += step) {
    const std::int64_t count = std::min(step, r1 - r), at = (r - r0) * stride;
    const FloatRows rows{c.x, c.a.width, c.tokens_of(*item.share) + r};
    const PlainMatrix gates = rows_from(w, item.begin), ups = rows_from(w, inner + item.begin);
    tile(gates, rows, 0, count, 0, stride, gate + at, stride);
    tile(ups, rows, 0, count, 0, stride, up + at, stride);
  }
  c.kernels.activation.silu_and_mul(gate, up, gate, (r1 - r0) * stride);
}

void down_tile(const Call& c, const DownItem& item, const PlainMatrix& w, std::int64_t r0, std::int64_t r1,
               float* tile) {
  const std::int64_t step = tokens_at_a_time(w.inner);
  for (std::int64_t r = r0; r < r1; r += step) {
    const FloatRows rows{c.inner + (item.share->first + r) * c.inner_stride, c.inner_stride, nullptr};
    c.kernels.plain(w.format)(rows_from(w, item.n), rows, 0, std::min(step, r1 - r), 0, item.columns,
                              tile + (r - r0) * output_columns, output_columns);
  }
}

}  // namespace tusi
