// Full attention inside segments: each ISA in float32, and the bfloat16 products where this processor has them, against a
// plain softmax in double precision.
#include "attention/attention.h"
#include "attention/bf16.h"
#include "attention/dispatch.h"
#include "check.h"
#include "softmax_average.h"

namespace tusi {
namespace {

constexpr std::int64_t heads = 3;

// Queries, keys and values side by side, as one product leaves them.
struct Segments {
  std::vector<std::int32_t> bounds;
  std::int64_t head_dim;
  std::vector<float> qkv;

  Segments(std::vector<std::int32_t> b, std::int64_t dim) : bounds(std::move(b)), head_dim(dim) {
    qkv = test::normal(static_cast<std::size_t>(bounds.back() * 3 * heads * dim), 1);
  }

  std::size_t size() const { return qkv.size() / 3; }
  const float* at(std::int64_t token, std::int64_t part, std::int64_t head) const {
    return qkv.data() + ((token * 3 + part) * heads + head) * head_dim;
  }
  VarlenAttentionArgs args(float* out) const {
    return {at(0, 0, 0),   at(0, 1, 0), at(0, 2, 0), 3 * heads * head_dim, bounds.data(),
            out, static_cast<std::int64_t>(bounds.size()) - 1, heads, head_dim, 0.25F};
  }

  // Some of the rows: all of them would take long under the sanitizers.
  void check(const float* out, double absolute, double relative) const {
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      for (std::int64_t t = bounds[s]; t < bounds[s + 1]; ++t) {
        const std::int64_t head = t % heads;
        test::AttentionRow row{at(t, 0, head), {}, {}};
        for (std::int64_t j = bounds[s]; j < bounds[s + 1]; ++j) {
          row.keys.push_back(at(j, 1, head));
          row.values.push_back(at(j, 2, head));
        }
        test::check_row(row, out + (t * heads + head) * head_dim, head_dim, 0.25, absolute, relative);
      }
    }
  }
};

TEST(varlen_attention_equals_a_plain_softmax) {
  for (const std::int64_t head_dim : {8, 72, 80}) {
    const Segments segments({0, 1, 1, 65, 70, 135, 400}, head_dim);
    for (const Isa isa : test::supported_isas()) {
      test::Guarded out(segments.size());
      varlen_attention(segments.args(out.data()), select_attention_kernels(isa));
      CHECK(out.intact());
      segments.check(out.data(), 8e-6, 1e-5);
    }
  }
}

// Rounding to 8 bits moves a score by up to 2^-8 of |q||k| * scale and a weight or a value by 2^-9 of itself.
TEST(bf16_attention_stays_within_its_rounding) {
  for (const Isa isa : test::supported_isas()) {
    const Bf16Attention* kernels = select_bf16_attention(isa);
    if (kernels == nullptr) continue;
    for (const std::int64_t head_dim : {2, 8, 72, 80, 128}) {
      const Segments segments({0, 1, 1, 65, 70, 135, 400}, head_dim);
      test::Guarded out(segments.size());
      varlen_attention_bf16(segments.args(out.data()), *kernels);
      CHECK(out.intact());
      segments.check(out.data(), 0.03, 0.01);
    }
  }
}

}  // namespace
}  // namespace tusi
