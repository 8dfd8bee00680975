// The one-call mixture of experts against single products, one token and expert at a time, on every instruction set.
#include <algorithm>
#include <cstring>

#include "check.h"
#include "core/thread_pool.h"
#include "moe/moe.h"
#include "norm/norm.h"

namespace tusi {
namespace {

enum class Format { int4, int8, bf16, f32 };

bool is_packed(Format format) { return format == Format::int4 || format == Format::int8; }

// A stack of random matrices, in arrays exactly as long as they must be.
struct Stack {
  Matrix first;
  std::int64_t stride, scale_stride;
  std::vector<std::uint8_t> values;
  std::vector<std::uint16_t> scales;

  Stack(std::int64_t count, std::int64_t rows, std::int64_t inner, std::int64_t group_size, Format format, unsigned seed) {
    if (is_packed(format)) {
      PackedMatrix w = packed_matrix(rows, inner, group_size, format == Format::int4);
      stride = blocks_of(w) * w.chunks * w.chunk_bytes;
      scale_stride = blocks_of(w) * w.groups * block_rows * 2;
      values = test::integers<std::uint8_t>(static_cast<std::size_t>(count * stride), 0, 255, seed);
      scales = test::integers<std::uint16_t>(static_cast<std::size_t>(count * scale_stride / 2), 0x3C00, 0x3D00, seed);
      w.codes = values.data();
      w.scales = scales.data();
      first = w;
      return;
    }
    std::vector<float> numbers = test::normal(static_cast<std::size_t>(count * rows * inner), seed);
    const std::size_t item = format == Format::f32 ? 4 : 2;
    stride = rows * inner * static_cast<std::int64_t>(item);
    scale_stride = 0;
    values.resize(numbers.size() * item);
    // The upper half of a float32, on a machine of little ends.
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      std::memcpy(values.data() + i * item, reinterpret_cast<char*>(&numbers[i]) + 4 - item, item);
    }
    first = PlainMatrix{values.data(), rows, inner, format == Format::f32 ? WeightFormat::f32 : WeightFormat::bf16};
  }

  Matrix at(std::int64_t e) const {
    if (const auto* plain = std::get_if<PlainMatrix>(&first)) {
      return PlainMatrix{values.data() + e * stride, plain->rows, plain->inner, plain->format};
    }
    PackedMatrix w = std::get<PackedMatrix>(first);
    w.codes = values.data() + e * stride;
    w.scales = reinterpret_cast<const std::uint8_t*>(scales.data()) + e * scale_stride;
    return w;
  }
};

std::int64_t padded(std::int64_t inner, Format format) { return is_packed(format) ? (inner + 15) / 16 * 16 : inner; }

struct TestExperts {
  Stack gate_up, down;
  Experts experts;

  TestExperts(std::int64_t count, std::int64_t width, std::int64_t inner, std::int64_t group, Format format, unsigned seed)
      : gate_up(count, 2 * padded(inner, format), width, group, format, seed),
        down(count, width, inner, group, format, seed + 1),
        experts{gate_up.first,         down.first,
                count,                 width,
                inner,                 padded(inner, format),
                gate_up.stride,        gate_up.scale_stride,
                down.stride,           down.scale_stride} {}
};

constexpr std::int64_t width = 40, count = 5, top_k = 2;

struct TestPool {
  TestExperts experts;
  std::vector<float> router, bias;
  Pool pool;

  TestPool(std::int64_t inner, std::int64_t group, Format format, unsigned seed)
      : experts(count, width, inner, group, format, seed),
        router(test::normal(static_cast<std::size_t>(count * width), seed + 2)),
        bias(test::normal(static_cast<std::size_t>(count), seed + 3)),
        pool{{router.data(), bias.data()}, experts.experts} {}
};

// down(silu(gate) * up) of one token, from two products.
std::vector<float> one_expert(const TestExperts& e, std::int64_t number, const float* x, Activations activations,
                              const LinearKernels& kernels) {
  const std::int64_t columns = e.experts.padded_inner, inner = e.experts.inner;
  std::vector<float> both(static_cast<std::size_t>(2 * columns)), out(static_cast<std::size_t>(width));
  linear({e.gate_up.at(number), x, nullptr, nullptr, both.data(), 1, 0.0F, false, activations}, kernels);
  if (std::holds_alternative<PackedMatrix>(e.experts.gate_up)) {
    kernels.packed.silu_and_mul(both.data(), both.data() + columns, inner);
  } else {
    kernels.activation.silu_and_mul(both.data(), both.data() + columns, both.data(), inner);
  }
  linear({e.down.at(number), both.data(), nullptr, nullptr, out.data(), 1, 0.0F, false, activations}, kernels);
  return out;
}

struct Setting {
  std::int64_t tokens, text_inner, vision_inner, group;
  Format text, vision, shared;
  bool with_vision, with_shared, with_norm, add;
  Activations activations;
};

void check(const Setting& s, Isa isa) {
  const TestPool text(s.text_inner, s.group, s.text, 10), vision(s.vision_inner, s.group, s.vision, 20);
  const TestExperts shared(1, width, 24, 8, s.shared, 30);
  const std::size_t values = static_cast<std::size_t>(s.tokens * width);
  const std::vector<float> x = test::normal(values, 1), norm = test::normal(width, 2), before = test::normal(values, 3);
  std::vector<std::uint8_t> is_vision(static_cast<std::size_t>(s.tokens));
  for (std::size_t t = 0; t < is_vision.size(); ++t) is_vision[t] = t % 3 == 1;
  std::vector<float> normed = x;
  if (s.with_norm) rms_norm({x.data(), norm.data(), nullptr, normed.data(), s.tokens, width, 1e-5F});

  test::Guarded out(values), weights(static_cast<std::size_t>(s.tokens * top_k));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(s.tokens * top_k));
  std::memcpy(out.data(), before.data(), values * sizeof(float));
  MoeArgs args{};
  args.x = x.data();
  args.norm_weight = s.with_norm ? norm.data() : nullptr;
  args.out = out.data();
  args.is_vision = s.with_vision ? is_vision.data() : nullptr;
  args.text = &text.pool;
  args.vision = &vision.pool;
  args.shared = s.with_shared ? &shared.experts : nullptr;
  args.topk_weights = weights.data();
  args.topk_ids = ids.data();
  args.tokens = s.tokens;
  args.width = width;
  args.top_k = top_k;
  args.eps = 1e-5F;
  args.norm_min = 1e-12F;
  args.add = s.add;
  args.activations = s.activations;
  const LinearKernels kernels = select_linear_kernels(isa);
  moe(args, kernels);
  CHECK(out.intact());
  CHECK(weights.intact());

  for (std::int64_t t = 0; t < s.tokens; ++t) {
    const bool sees = s.with_vision && is_vision[static_cast<std::size_t>(t)] != 0;
    const TestPool& pool = sees ? vision : text;
    std::vector<std::pair<std::int32_t, float>> chosen;
    for (std::int64_t j = 0; j < top_k; ++j) {
      chosen.push_back({ids[static_cast<std::size_t>(t * top_k + j)], weights.data()[t * top_k + j]});
    }
    std::sort(chosen.begin(), chosen.end());
    std::vector<float> sum(width, 0.0F);
    const auto add = [&](const std::vector<float>& one, float weight) {
      for (std::size_t i = 0; i < sum.size(); ++i) {
        const float product = weight * one[i];
        sum[i] += product;
      }
    };
    for (const auto& [id, weight] : chosen) {
      CHECK(id >= 0 && id < count);
      add(one_expert(pool.experts, id, normed.data() + t * width, s.activations, kernels), weight);
    }
    if (s.with_shared) add(one_expert(shared, 0, normed.data() + t * width, s.activations, kernels), 1.0F);
    for (std::int64_t i = 0; i < width; ++i) {
      const float expected = (s.add ? before[static_cast<std::size_t>(t * width + i)] : 0.0F) + sum[static_cast<std::size_t>(i)];
      CHECK(out.data()[t * width + i] == expected);
    }
  }
}

TEST(experts_in_one_call_are_those_of_single_products) {
  set_num_threads(3);
  for (const Isa isa : test::supported_isas()) {
    for (const Activations activations : {Activations::int8, Activations::float32}) {
      for (const Format format : {Format::int4, Format::int8, Format::bf16, Format::f32}) {
        const Format other = format == Format::int4 ? Format::int8 : format == Format::int8 ? Format::int4 : format;
        for (const std::int64_t tokens : {1, 2, 13}) {
          check({tokens, 48, 16, 16, format, other, format, true, true, true, true, activations}, isa);
          check({tokens, 33, 40, 32, format, other, format, true, false, false, true, activations}, isa);
          check({tokens, 16, 16, 12, format, other, format, false, true, true, false, activations}, isa);
        }
      }
    }
  }
}

TEST(packed_and_plain_experts_may_meet_in_one_call) {
  for (const Isa isa : test::supported_isas()) {
    for (const Activations activations : {Activations::int8, Activations::float32}) {
      check({13, 48, 70, 16, Format::int4, Format::bf16, Format::f32, true, true, true, true, activations}, isa);
      check({13, 33, 48, 16, Format::bf16, Format::int8, Format::int4, true, true, false, true, activations}, isa);
      check({5, 101, 16, 16, Format::f32, Format::f32, Format::int4, false, true, false, false, activations}, isa);
    }
  }
}

TEST(many_tokens_of_an_expert_go_through_in_pieces) {
  for (const Isa isa : test::supported_isas()) {
    for (const Format format : {Format::int4, Format::bf16}) {
      check({300, 50, 16, 32, format, format, format, true, true, true, true, Activations::int8}, isa);
    }
  }
}

TEST(a_dense_mlp_adds_to_its_own_input) {
  const std::vector<float> x = test::normal(7 * width, 1);
  for (const Format format : {Format::int4, Format::bf16}) {
    const TestExperts mlp(1, width, 48, 32, format, 40);
    for (const Isa isa : test::supported_isas()) {
      const LinearKernels kernels = select_linear_kernels(isa);
      test::Guarded out(7 * width);
      std::memcpy(out.data(), x.data(), x.size() * sizeof(float));
      MoeArgs args{};
      args.x = out.data();
      args.out = out.data();
      args.shared = &mlp.experts;
      args.tokens = 7;
      args.width = width;
      args.add = true;
      args.activations = Activations::int8;
      moe(args, kernels);
      CHECK(out.intact());
      for (std::int64_t t = 0; t < 7; ++t) {
        const std::vector<float> one = one_expert(mlp, 0, x.data() + t * width, Activations::int8, kernels);
        for (std::int64_t i = 0; i < width; ++i) {
          const auto at = static_cast<std::size_t>(t * width + i);
          CHECK(out.data()[at] == x[at] + one[static_cast<std::size_t>(i)]);
        }
      }
    }
  }
}

TEST(the_layers_product_is_that_of_its_format) {
  const std::vector<float> x = test::normal(9 * width, 1), norm = test::normal(width, 2), bias = test::normal(33, 3);
  for (const Format format : {Format::int4, Format::int8, Format::bf16, Format::f32}) {
    const Stack stack(1, 33, width, 16, format, 4);
    CHECK(rows_of(stack.first) == 33 && inner_of(stack.first) == width);
    for (const Isa isa : test::supported_isas()) {
      const LinearKernels kernels = select_linear_kernels(isa);
      std::vector<float> plain(9 * 33), fused(9 * 33, 2.0F);
      std::vector<float> normed(x.size());
      rms_norm({x.data(), norm.data(), nullptr, normed.data(), 9, width, 1e-5F});
      linear({stack.first, normed.data(), nullptr, nullptr, plain.data(), 9, 0.0F, false, Activations::int8}, kernels);
      linear({stack.first, x.data(), norm.data(), bias.data(), fused.data(), 9, 1e-5F, true, Activations::int8}, kernels);
      for (std::size_t i = 0; i < fused.size(); ++i) CHECK(fused[i] == 2.0F + (plain[i] + bias[i % 33]));
    }
  }
}

}  // namespace
}  // namespace tusi
