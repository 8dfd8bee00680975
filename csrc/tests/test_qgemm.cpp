// Packed integer products: every instruction set gives the bits of the definition in qgemm.h, touches nothing beside
// its arrays (vectors exactly as long as the layout says, under the address sanitizer), whatever the batch and threads.
#include <algorithm>
#include <cstring>

#include "check.h"
#include "core/thread_pool.h"
#include "norm/norm.h"
#include "qgemm/driver.h"

namespace tusi {
namespace {

struct Problem {
  PackedMatrix w;
  std::vector<std::int8_t> codes;      // [rows][inner]
  std::vector<std::uint16_t> scales;   // [rows][groups]
  std::vector<std::uint8_t> packed;
  std::vector<std::uint16_t> packed_scales;
  std::vector<float> x;

  float scale(std::int64_t row, std::int64_t group) const {
    const std::uint32_t word = static_cast<std::uint32_t>(scales[static_cast<std::size_t>(row * w.groups + group)]) << 16;
    float value;
    std::memcpy(&value, &word, sizeof(value));
    return value;
  }
};

Problem make(std::int64_t tokens, std::int64_t rows, std::int64_t inner, std::int64_t group_size, bool four_bits) {
  Problem p;
  p.w = packed_matrix(rows, inner, group_size, four_bits);
  const int half = p.w.zero;
  p.codes = test::integers<std::int8_t>(static_cast<std::size_t>(rows * inner), -half, half - 1, 1);
  p.scales = test::integers<std::uint16_t>(static_cast<std::size_t>(rows * p.w.groups), 0x3A00, 0x3C80, 2);
  p.packed.resize(static_cast<std::size_t>(blocks_of(p.w) * p.w.chunks * p.w.chunk_bytes));
  p.packed_scales.resize(static_cast<std::size_t>(blocks_of(p.w) * p.w.groups * block_rows));
  pack(p.w, p.codes.data(), p.scales.data(), p.packed.data(), p.packed_scales.data());
  p.w.codes = p.packed.data();
  p.w.scales = p.packed_scales.data();
  p.x = test::normal(static_cast<std::size_t>(tokens * inner), 3);
  return p;
}

QgemmArgs args(const Problem& p, std::int64_t tokens, Activations activations, float* out) {
  return {p.w, p.x.data(), nullptr, nullptr, out, tokens, 0.0F, false, activations};
}

// One output, step by step as the header defines it.
float expected(const Problem& p, std::int64_t t, std::int64_t n) {
  float sum = 0.0F;
  for (std::int64_t g = 0; g < p.w.groups; ++g) {
    const std::int64_t begin = g * p.w.group_size, end = std::min(begin + p.w.group_size, p.w.inner);
    float largest = 0.0F;
    for (std::int64_t k = begin; k < end; ++k) {
      largest = std::max(largest, std::fabs(p.x[static_cast<std::size_t>(t * p.w.inner + k)]));
    }
    std::int32_t dot = 0;
    for (std::int64_t k = begin; k < end; ++k) {
      const float value = p.x[static_cast<std::size_t>(t * p.w.inner + k)] * (127.0F / largest);
      dot += p.codes[static_cast<std::size_t>(n * p.w.inner + k)] * static_cast<int>(std::nearbyint(value));
    }
    const float both = largest / 127.0F * p.scale(n, g);
    const float term = static_cast<float>(dot) * both;
    sum += term;
  }
  return sum;
}

TEST(integer_products_are_the_definition_bit_for_bit) {
  for (const bool four_bits : {true, false}) {
    for (const std::int64_t inner : {1, 7, 8, 17, 33, 72, 130}) {
      for (const std::int64_t group_size : {1, 3, 8, 20, 32, 4096}) {
        for (const std::int64_t rows : {1, 16, 37}) {
          const Problem p = make(7, rows, inner, group_size, four_bits);
          for (const Isa isa : test::supported_isas()) {
            for (const std::int64_t tokens : {1, 7}) {
              test::Guarded out(static_cast<std::size_t>(tokens * rows));
              qgemm(args(p, tokens, Activations::int8, out.data()), select_qgemm_kernels(isa));
              CHECK(out.intact());
              for (std::int64_t i = 0; i < tokens * rows; ++i) CHECK(out.data()[i] == expected(p, i / rows, i % rows));
            }
          }
        }
      }
    }
  }
}

TEST(float_activations_multiply_within_the_bound) {
  for (const bool four_bits : {true, false}) {
    for (const std::int64_t inner : {1, 9, 33, 130}) {
      for (const std::int64_t group_size : {3, 32}) {
        const Problem p = make(5, 37, inner, group_size, four_bits);
        for (const Isa isa : test::supported_isas()) {
          test::Guarded out(5 * 37);
          qgemm(args(p, 5, Activations::float32, out.data()), select_qgemm_kernels(isa));
          CHECK(out.intact());
          for (std::int64_t i = 0; i < 5 * 37; ++i) {
            double exact = 0.0, magnitude = 0.0;
            for (std::int64_t k = 0; k < inner; ++k) {
              const double weight = p.codes[static_cast<std::size_t>(i % 37 * inner + k)] *
                                    static_cast<double>(p.scale(i % 37, k / p.w.group_size));
              const double term = weight * p.x[static_cast<std::size_t>(i / 37 * inner + k)];
              exact += term;
              magnitude += std::fabs(term);
            }
            const double roundings = static_cast<double>(std::min(inner, group_size) + p.w.groups + 4);
            CHECK(std::fabs(out.data()[i] - exact) <= magnitude * std::ldexp(1.0, -24) * roundings);
          }
        }
      }
    }
  }
}

TEST(packing_comes_back) {
  for (const bool four_bits : {true, false}) {
    const Problem p = make(1, 21, 45, 20, four_bits);
    std::vector<std::int8_t> codes(p.codes.size());
    std::vector<std::uint16_t> scales(p.scales.size());
    unpack(p.w, codes.data(), scales.data());
    CHECK(codes == p.codes);
    CHECK(scales == p.scales);
    const std::int64_t ids[2] = {20, 0};
    test::Guarded rows(2 * 45);
    dequantize_rows(p.w, ids, 2, rows.data());
    CHECK(rows.intact());
    for (std::int64_t i = 0; i < 90; ++i) {
      const std::int64_t row = ids[i / 45], k = i % 45;
      CHECK(rows.data()[i] == static_cast<float>(p.codes[static_cast<std::size_t>(row * 45 + k)]) * p.scale(row, k / 20));
    }
  }
}

TEST(integer_rows_do_not_depend_on_batch_or_threads) {
  const Problem p = make(210, 101, 640, 32, true);
  for (const Isa isa : test::supported_isas()) {
    if (isa == Isa::generic) continue;  // slow under sanitizers; its results equal the others' above
    const QgemmKernels& kernels = select_qgemm_kernels(isa);
    set_num_threads(1);
    test::Guarded alone(210 * 101);
    qgemm(args(p, 210, Activations::int8, alone.data()), kernels);
    for (const int threads : {2, 5}) {
      set_num_threads(threads);
      test::Guarded out(210 * 101);
      qgemm(args(p, 210, Activations::int8, out.data()), kernels);
      CHECK(out.intact());
      CHECK(std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)) == 0);
    }
    test::Guarded one(101);
    QgemmArgs last = args(p, 1, Activations::int8, one.data());
    last.x += 209 * 640;
    qgemm(last, kernels);
    CHECK(std::memcmp(one.data(), alone.data() + 209 * 101, 101 * sizeof(float)) == 0);
  }
}

TEST(norm_bias_and_sum_are_those_of_separate_steps) {
  const Problem p = make(9, 37, 72, 32, true);
  const std::vector<float> bias = test::normal(37, 5), norm = test::normal(72, 6), before = test::normal(9 * 37, 7);
  for (const Isa isa : test::supported_isas()) {
    const QgemmKernels& kernels = select_qgemm_kernels(isa);
    std::vector<float> normed(p.x.size());
    rms_norm({p.x.data(), norm.data(), nullptr, normed.data(), 9, 72, 1e-5F});
    test::Guarded plain(9 * 37), fused(9 * 37);
    QgemmArgs apart = args(p, 9, Activations::int8, plain.data());
    apart.x = normed.data();
    qgemm(apart, kernels);
    std::memcpy(fused.data(), before.data(), before.size() * sizeof(float));
    QgemmArgs all = args(p, 9, Activations::int8, fused.data());
    all.norm_weight = norm.data();
    all.eps = 1e-5F;
    all.bias = bias.data();
    all.add = true;
    qgemm(all, kernels);
    CHECK(fused.intact());
    for (std::size_t i = 0; i < before.size(); ++i) {
      const float biased = plain.data()[i] + bias[i % 37];
      CHECK(fused.data()[i] == before[i] + biased);
    }
  }
}

TEST(empty_integer_products_are_done) {
  const Problem p = make(8, 4, 0, 32, true);
  for (const Isa isa : test::supported_isas()) {
    qgemm(args(p, 0, Activations::int8, nullptr), select_qgemm_kernels(isa));
    for (const Activations activations : {Activations::int8, Activations::float32}) {
      for (const std::int64_t tokens : {1, 3, 8}) {
        test::Guarded out(static_cast<std::size_t>(4 * tokens));
        qgemm(args(p, tokens, activations, out.data()), select_qgemm_kernels(isa));
        CHECK(out.intact());
        for (std::size_t i = 0; i < out.size(); ++i) CHECK(out.data()[i] == 0.0F);
      }
    }
  }
}

}  // namespace
}  // namespace tusi
