// Each ISA against products in double precision, over widths around every vector length.
#include <cstring>

#include "check.h"
#include "core/thread_pool.h"
#include "gemm/driver.h"
#include "norm/norm.h"

namespace tusi {
namespace {

struct Problem {
  WeightFormat format;
  std::int64_t tokens, rows, inner;
  std::vector<float> x;
  std::vector<std::uint8_t> weight;  // exactly as long as the format says, so that a sanitizer sees a read past it
  std::vector<double> exact;

  PlainMatrix matrix() const { return {weight.data(), rows, inner, format}; }
  GemmArgs args(float* out) const { return {matrix(), x.data(), nullptr, nullptr, out, tokens, 0.0F, false}; }
};

template <class T>
void put(Problem* p, const std::vector<T>& values) {
  p->weight.resize(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(p->weight.data(), values.data(), p->weight.size());
}

double element(const Problem& p, std::int64_t n, std::int64_t k) {
  const std::size_t at = static_cast<std::size_t>(n * p.inner + k);
  std::uint32_t word = 0;
  if (p.format == WeightFormat::f32) {
    std::memcpy(&word, p.weight.data() + 4 * at, 4);
  } else {
    std::uint16_t bits;
    std::memcpy(&bits, p.weight.data() + 2 * at, 2);
    word = static_cast<std::uint32_t>(bits) << 16;
  }
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

Problem make(WeightFormat format, std::int64_t tokens, std::int64_t rows, std::int64_t inner) {
  Problem p{format, tokens, rows, inner, {}, {}, {}};
  const std::size_t weights = static_cast<std::size_t>(rows * inner);
  p.x = test::normal(static_cast<std::size_t>(tokens * inner), 1);
  if (format == WeightFormat::f32) {
    put(&p, test::normal(weights, 2));
  } else {
    put(&p, test::integers<std::uint16_t>(weights, 0x3E00, 0x4000, 2));
  }
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t k = 0; k < inner; ++k) p.exact.push_back(element(p, n, k));
  }
  return p;
}

void check_product(const Problem& p, const float* out) {
  for (std::int64_t t = 0; t < p.tokens; ++t) {
    for (std::int64_t n = 0; n < p.rows; ++n) {
      double exact = 0.0, magnitude = 0.0;
      for (std::int64_t k = 0; k < p.inner; ++k) {
        const double term =
            p.x[static_cast<std::size_t>(t * p.inner + k)] * p.exact[static_cast<std::size_t>(n * p.inner + k)];
        exact += term;
        magnitude += std::fabs(term);
      }
      // Roundings of 2^-24 of the magnitude: at least eight partial sums of K / 8 terms, and a few to join them.
      const double bound = magnitude * std::ldexp(1.0, -24) * (static_cast<double>(p.inner) / 8 + 16) + 1e-30;
      CHECK(std::fabs(out[t * p.rows + n] - exact) <= bound);
    }
  }
}

TEST(every_isa_and_format_multiplies_within_the_bound) {
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16}) {
    for (const std::int64_t inner : {1, 2, 7, 8, 9, 15, 16, 17, 20, 31, 33, 64, 129, 513}) {
      for (const std::int64_t tokens : {1, 2, 5}) {
        const Problem p = make(format, tokens, 13, inner);
        for (const Isa isa : test::supported_isas()) {
          test::Guarded out(static_cast<std::size_t>(tokens * 13));
          gemm(p.args(out.data()), select_gemm_tile(format, isa));
          CHECK(out.intact());
          check_product(p, out.data());
        }
      }
    }
  }
}

TEST(rows_do_not_depend_on_batch_or_threads) {
  const Problem p = make(WeightFormat::bf16, 70, 101, 300);
  for (const Isa isa : test::supported_isas()) {
    const GemmTile tile = select_gemm_tile(p.format, isa);
    set_num_threads(1);
    test::Guarded expected(70 * 101);
    gemm(p.args(expected.data()), tile);
    for (const int threads : {2, 5}) {
      set_num_threads(threads);
      test::Guarded out(70 * 101);
      gemm(p.args(out.data()), tile);
      CHECK(out.intact());
      CHECK(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) == 0);
    }
    for (const std::int64_t t : {0, 3, 69}) {
      test::Guarded out(101);
      GemmArgs one = p.args(out.data());
      one.x += t * p.inner;
      one.tokens = 1;
      gemm(one, tile);
      CHECK(std::memcmp(out.data(), expected.data() + t * 101, 101 * sizeof(float)) == 0);
    }
  }
}

TEST(a_tile_reads_the_rows_that_it_is_told_to) {
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16}) {
    for (const std::int64_t inner : {7, 16, 40}) {
      const Problem p = make(format, 9, 23, inner);
      const std::vector<std::int32_t> index{8, 0, 3, 3, 5, 1, 7};
      for (const Isa isa : test::supported_isas()) {
        const GemmTile tile = select_gemm_tile(format, isa);
        test::Guarded whole(9 * 23);
        gemm(p.args(whole.data()), tile);
        for (std::int64_t rows = 1; rows <= 7; ++rows) {
          for (std::int64_t n0 = 0; n0 < 23; n0 += 5) {
            for (std::int64_t n1 = n0 + 1; n1 <= 23; ++n1) {
              test::Guarded out(static_cast<std::size_t>(rows * 23));
              tile(p.matrix(), {p.x.data(), inner, index.data()}, 0, rows, n0, n1, out.data(), 23);
              CHECK(out.intact());
              for (std::int64_t i = 0; i < rows * 23; ++i) {
                const bool inside = i % 23 >= n0 && i % 23 < n1;
                const float expected =
                    inside ? whole.data()[index[static_cast<std::size_t>(i / 23)] * 23 + i % 23] : test::Guarded::sentinel;
                CHECK(out.data()[i] == expected);
              }
            }
          }
        }
      }
    }
  }
}

TEST(norm_bias_and_addition_are_those_of_single_steps) {
  const Problem p = make(WeightFormat::bf16, 70, 101, 300);
  const std::vector<float> norm = test::normal(300, 3), bias = test::normal(101, 4), before = test::normal(70 * 101, 5);
  std::vector<float> normed(70 * 300), product(70 * 101);
  rms_norm({p.x.data(), norm.data(), nullptr, normed.data(), 70, 300, 1e-5F});
  for (const Isa isa : test::supported_isas()) {
    const GemmTile tile = select_gemm_tile(p.format, isa);
    gemm({p.matrix(), normed.data(), nullptr, nullptr, product.data(), 70, 0.0F, false}, tile);
    for (const bool with_bias : {false, true}) {
      for (const bool add : {false, true}) {
        test::Guarded out(70 * 101);
        std::memcpy(out.data(), before.data(), before.size() * sizeof(float));
        gemm({p.matrix(), p.x.data(), norm.data(), with_bias ? bias.data() : nullptr, out.data(), 70, 1e-5F, add}, tile);
        CHECK(out.intact());
        for (std::size_t i = 0; i < before.size(); ++i) {
          const float value = with_bias ? product[i] + bias[i % 101] : product[i];
          CHECK(out.data()[i] == (add ? before[i] + value : value));
        }
      }
    }
  }
}

TEST(nothing_to_do_is_done) {
  for (const Isa isa : test::supported_isas()) {
    const Problem none = make(WeightFormat::f32, 0, 4, 8);
    gemm(none.args(nullptr), select_gemm_tile(none.format, isa));
    const Problem empty = make(WeightFormat::f32, 3, 4, 0);
    test::Guarded out(12);
    gemm(empty.args(out.data()), select_gemm_tile(empty.format, isa));
    CHECK(out.intact());
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(out.data()[i] == 0.0F);
  }
}

}  // namespace
}  // namespace tusi
