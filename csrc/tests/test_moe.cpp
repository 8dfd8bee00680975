// The one-call mixture of experts against single products, one token and expert at a time, on every instruction set.
#include <algorithm>
#include <cstring>

#include "check.h"
#include "core/thread_pool.h"
#include "gemm/driver.h"
#include "moe/moe.h"
#include "norm/norm.h"
#include "qgemm/driver.h"

namespace tusi {
namespace {

// A stack of random matrices, in arrays exactly as long as they must be.
struct Stack {
  PackedMatrix shape;
  std::int64_t code_bytes, scale_bytes;
  std::vector<std::uint8_t> codes;
  std::vector<std::uint16_t> scales;

  Stack(std::int64_t count, std::int64_t rows, std::int64_t inner, std::int64_t group_size, bool four_bits, unsigned seed)
      : shape(packed_matrix(rows, inner, group_size, four_bits)),
        code_bytes(blocks_of(shape) * shape.chunks * shape.chunk_bytes),
        scale_bytes(blocks_of(shape) * shape.groups * block_rows * 2),
        codes(test::integers<std::uint8_t>(static_cast<std::size_t>(count * code_bytes), 0, 255, seed)),
        scales(test::integers<std::uint16_t>(static_cast<std::size_t>(count * scale_bytes / 2), 0x3C00, 0x3D00, seed)) {}

  PackedMatrix at(std::int64_t e) const {
    PackedMatrix w = shape;
    w.codes = codes.data() + e * code_bytes;
    w.scales = reinterpret_cast<const std::uint8_t*>(scales.data()) + e * scale_bytes;
    return w;
  }
};

struct TestExperts {
  Stack gate_up, down;
  Experts experts;

  TestExperts(std::int64_t count, std::int64_t width, std::int64_t inner, std::int64_t group, bool four, unsigned seed)
      : gate_up(count, 2 * ((inner + 15) / 16 * 16), width, group, four, seed),
        down(count, width, inner, group, four, seed + 1),
        experts{gate_up.at(0),        down.at(0),          count,           (inner + 15) / 16 * 16,
                gate_up.code_bytes,   gate_up.scale_bytes, down.code_bytes, down.scale_bytes} {}
};

constexpr std::int64_t width = 40, count = 5, top_k = 2;

struct TestPool {
  TestExperts experts;
  std::vector<float> router, bias;
  Pool pool;

  TestPool(std::int64_t inner, std::int64_t group, bool four, unsigned seed)
      : experts(count, width, inner, group, four, seed),
        router(test::normal(static_cast<std::size_t>(count * width), seed + 2)),
        bias(test::normal(static_cast<std::size_t>(count), seed + 3)),
        pool{{router.data(), bias.data()}, experts.experts} {}
};

// down(silu(gate) * up) of one token, from two products.
std::vector<float> one_expert(const TestExperts& e, std::int64_t number, const float* x, Activations activations,
                              const QgemmKernels& kernels) {
  const std::int64_t padded = e.experts.padded_inner, inner = e.down.shape.inner;
  std::vector<float> both(static_cast<std::size_t>(2 * padded)), out(static_cast<std::size_t>(width));
  qgemm({e.gate_up.at(number), x, nullptr, nullptr, both.data(), 1, 0.0F, false, activations}, kernels);
  kernels.silu_and_mul(both.data(), both.data() + padded, inner);
  qgemm({e.down.at(number), both.data(), nullptr, nullptr, out.data(), 1, 0.0F, false, activations}, kernels);
  return out;
}

struct Setting {
  std::int64_t tokens, text_inner, vision_inner, group;
  bool four_bits, with_vision, with_shared, with_norm, add;
  Activations activations;
};

void check(const Setting& s, Isa isa) {
  const TestPool text(s.text_inner, s.group, s.four_bits, 10), vision(s.vision_inner, s.group, !s.four_bits, 20);
  const TestExperts shared(1, width, 24, 8, s.four_bits, 30);
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
  const QgemmKernels& kernels = select_qgemm_kernels(isa);
  moe(args, kernels, select_gemm_tile(WeightFormat::f32, isa));
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
      for (const bool four_bits : {true, false}) {
        for (const std::int64_t tokens : {1, 2, 13}) {
          check({tokens, 48, 16, 16, four_bits, true, true, true, true, activations}, isa);
          check({tokens, 33, 40, 32, four_bits, true, false, false, true, activations}, isa);
          check({tokens, 16, 16, 12, four_bits, false, true, true, false, activations}, isa);
        }
      }
    }
  }
}

TEST(many_tokens_of_an_expert_go_through_in_pieces) {
  for (const Isa isa : test::supported_isas()) {
    check({300, 32, 16, 32, true, true, true, true, true, Activations::int8}, isa);
  }
}

TEST(a_dense_mlp_adds_to_its_own_input) {
  const TestExperts mlp(1, width, 48, 32, true, 40);
  const std::vector<float> x = test::normal(7 * width, 1);
  for (const Isa isa : test::supported_isas()) {
    const QgemmKernels& kernels = select_qgemm_kernels(isa);
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
    moe(args, kernels, select_gemm_tile(WeightFormat::f32, isa));
    CHECK(out.intact());
    for (std::int64_t t = 0; t < 7; ++t) {
      const std::vector<float> one = one_expert(mlp, 0, x.data() + t * width, Activations::int8, kernels);
      for (std::int64_t i = 0; i < width; ++i) {
        CHECK(out.data()[t * width + i] == x[static_cast<std::size_t>(t * width + i)] + one[static_cast<std::size_t>(i)]);
      }
    }
  }
}

}  // namespace
}  // namespace tusi
