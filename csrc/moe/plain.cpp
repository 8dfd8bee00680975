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

void multiply(const Call& c, const PlainMatrix& w, const Rows& x, const Rectangle& to) {
  const GemmTile tile = c.kernels.plain(w.format);
  const std::int64_t step = tokens_at_a_time(w.inner);
  for (std::int64_t r = to.r0; r < to.r1; r += step) {
    FloatRows rows = x.floats;
    if (rows.index == nullptr) {
      rows.x += r * rows.stride;
    } else {
      rows.index += r;
    }
    tile(rows_from(w, to.begin), rows, 0, std::min(step, to.r1 - r), 0, to.end - to.begin,
         to.tile + (r - to.r0) * to.width, to.width);
  }
}

void silu_and_mul(const Call& c, const PlainMatrix&, float* gate, const float* up, std::int64_t count) {
  c.kernels.activation.silu_and_mul(gate, up, gate, count);
}

}  // namespace tusi
