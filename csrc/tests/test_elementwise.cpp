#include <cstring>

#include "activation/dispatch.h"
#include "check.h"
#include "convert/dispatch.h"
#include "norm/dispatch.h"
#include "rotary/dispatch.h"
#include "routing/dispatch.h"

namespace tusi {
namespace {

bool close(double actual, double exact) { return std::fabs(actual - exact) <= 4e-6 * (1.0 + std::fabs(exact)); }

void rotary_interleaved_with(const RotaryArgs& args, Isa isa) { rotary_interleaved(args, select_rotary_kernels(isa)); }
void rotary_half_with(const RotaryArgs& args, Isa isa) { rotary_half(args, select_rotary_kernels(isa)); }

void check_norms(const NormKernels& kernels) {
  for (const std::int64_t width : {2, 7, 8, 65, 515}) {
    const std::size_t size = static_cast<std::size_t>(width);
    const std::vector<float> x = test::normal(3 * size, 1), weight = test::normal(size, 2),
                             bias = test::normal(size, 3);
    test::Guarded rms(3 * size), layer(3 * size);
    rms_norm({x.data(), weight.data(), nullptr, rms.data(), 3, width, 1e-5F}, kernels);
    layer_norm({x.data(), weight.data(), bias.data(), layer.data(), 3, width, 1e-5F}, kernels);
    CHECK(rms.intact() && layer.intact());
    for (std::size_t row = 0; row < 3; ++row) {
      double mean = 0.0, square = 0.0, variance = 0.0;
      const float* values = x.data() + row * size;
      for (std::size_t i = 0; i < size; ++i) {
        mean += values[i] / static_cast<double>(size);
        square += static_cast<double>(values[i]) * values[i] / static_cast<double>(size);
      }
      for (std::size_t i = 0; i < size; ++i)
        variance += (values[i] - mean) * (values[i] - mean) / static_cast<double>(size);
      for (std::size_t i = 0; i < size; ++i) {
        CHECK(close(rms.data()[row * size + i], weight[i] * (values[i] / std::sqrt(square + 1e-5))));
        CHECK(close(layer.data()[row * size + i],
                    weight[i] * ((values[i] - mean) / std::sqrt(variance + 1e-5)) + bias[i]));
      }
    }
  }
}

TEST(norms_equal_double_precision) {
  for (const Isa isa : test::supported_isas()) check_norms(select_norm_kernels(isa));
}

TEST(activations_equal_double_precision) {
  const std::vector<float> x = test::normal(2 * 2 * 9, 1);
  test::Guarded erf(x.size());
  gelu(x.data(), erf.data(), static_cast<std::int64_t>(x.size()));
  CHECK(erf.intact());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(close(erf.data()[i], 0.5 * x[i] * (1.0 + std::erf(x[i] / std::sqrt(2.0)))));
  }
  for (const Isa isa : test::supported_isas()) {
    const ActivationKernels& kernels = select_activation_kernels(isa);
    test::Guarded silu(2 * 9), quick(x.size());
    silu_and_mul(x.data(), silu.data(), 2, 9, kernels);
    quick_gelu(x.data(), quick.data(), static_cast<std::int64_t>(x.size()), kernels);
    CHECK(silu.intact() && quick.intact());
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(close(quick.data()[i], x[i] / (1.0 + std::exp(-1.702 * x[i]))));
    for (std::size_t i = 0; i < 18; ++i) {
      const double gate = x[i / 9 * 18 + i % 9], up = x[i / 9 * 18 + 9 + i % 9];
      CHECK(close(silu.data()[i], gate / (1.0 + std::exp(-gate)) * up));
    }
  }
}

TEST(rotary_turns_the_right_pairs) {
  const std::vector<float> x{1, 2, 3, 4}, cos{0, 1}, sin{1, 0};
  for (const Isa isa : test::supported_isas()) {
    const RotaryKernels& kernels = select_rotary_kernels(isa);
    test::Guarded out(4);
    rotary_interleaved({x.data(), cos.data(), sin.data(), out.data(), 1, 1, 4, 4}, kernels);
    CHECK(out.intact() && out.data()[0] == -2 && out.data()[1] == 1 && out.data()[2] == 3 && out.data()[3] == 4);
    rotary_half({x.data(), cos.data(), sin.data(), out.data(), 1, 1, 4, 4}, kernels);
    CHECK(out.intact() && out.data()[0] == -3 && out.data()[1] == 2 && out.data()[2] == 1 && out.data()[3] == 4);
  }
}

TEST(rotary_is_the_same_on_every_instruction_set) {
  for (const std::int64_t head_dim : {2, 6, 16, 20, 80, 128}) {
    const std::size_t size = static_cast<std::size_t>(2 * 3 * head_dim);
    const std::vector<float> x = test::normal(size, 1), cos = test::normal(size, 2), sin = test::normal(size, 3);
    for (const Isa isa : test::supported_isas()) {
      test::Guarded out(size), expected(size);
      for (const auto rotate : {&rotary_interleaved_with, &rotary_half_with}) {
        rotate({x.data(), cos.data(), sin.data(), out.data(), 2, 3, head_dim, 3 * head_dim}, isa);
        rotate({x.data(), cos.data(), sin.data(), expected.data(), 2, 3, head_dim, 3 * head_dim}, Isa::generic);
        CHECK(out.intact() && std::memcmp(out.data(), expected.data(), size * sizeof(float)) == 0);
      }
    }
  }
}

TEST(routing_takes_the_lowest_id_of_equals) {
  const std::vector<float> logits(2 * 5, 0.0F), bias{0, 0, 1, 0, 0};
  for (const Isa isa : test::supported_isas()) {
    test::Guarded weights(2 * 3);
    std::vector<std::int32_t> ids(2 * 3, -1);
    topk_softmax({logits.data(), bias.data(), weights.data(), ids.data(), 2, 5, 3, 1e-12F}, select_routing_kernels(isa));
    CHECK(weights.intact());
    for (std::size_t t = 0; t < 2; ++t) {
      CHECK(ids[t * 3] == 2 && ids[t * 3 + 1] == 0 && ids[t * 3 + 2] == 1);
      for (std::size_t j = 0; j < 3; ++j) CHECK(close(weights.data()[t * 3 + j], 1.0 / 3.0));
    }
  }
}

TEST(bf16_rounds_to_nearest_even) {
  const std::vector<std::uint32_t> few{0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800001, 0x80000000};
  const std::vector<std::uint16_t> rounded{0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FC0, 0x8000};
  std::vector<std::uint32_t> words;
  std::vector<std::uint16_t> expected;
  for (std::size_t i = 0; i < 35; ++i) {  // some vectors and an end
    words.push_back(few[i % few.size()]);
    expected.push_back(rounded[i % few.size()]);
  }
  std::vector<float> values(words.size());
  std::memcpy(values.data(), words.data(), words.size() * 4);
  for (const Isa isa : test::supported_isas()) {
    std::vector<std::uint16_t> bits(words.size());
    f32_to_bf16(values.data(), bits.data(), static_cast<std::int64_t>(bits.size()), select_convert_kernels(isa));
    CHECK(bits == expected);
  }
}

}  // namespace
}  // namespace tusi
