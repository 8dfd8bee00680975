// A dense layer and one with pools, run as a stack over several steps: against its parts called one by one, with every
// array exactly as long as it must be.
#include "attention/dispatch.h"
#include <algorithm>

#include "attention/layer.h"
#include "check.h"
#include "decoder/decoder.h"

namespace tusi {
namespace {

constexpr std::int64_t width = 24, heads = 4, kv_heads = 2, head_dim = 6, inner = 10, experts = 3, top_k = 2, tokens = 5;
constexpr std::int64_t qkv_rows = (heads + 2 * kv_heads) * head_dim, block_size = 4, blocks = 2;

struct Array {
  std::vector<float> values;
  explicit Array(std::int64_t count, unsigned seed) : values(test::normal(static_cast<std::size_t>(count), seed)) {}
  Matrix matrix(std::int64_t rows, std::int64_t columns) const {
    return PlainMatrix{values.data(), rows, columns, WeightFormat::f32};
  }
};

struct Model {
  Array norms{2 * width, 1}, qkv{qkv_rows * width, 2}, o{width * heads * head_dim, 3};
  Array gate_up{experts * 2 * inner * width, 4}, down{experts * width * inner, 5};
  Array router{experts * width, 6}, bias{experts, 7};
  Pool pool;
  Experts shared;
  DecoderLayer layers[2];

  Experts of(std::int64_t count) const {
    return {gate_up.matrix(2 * inner, width), down.matrix(width, inner), count,      width, inner, inner,
            2 * inner * width * 4,            0,                         width * inner * 4, 0};
  }
  Model() : pool{{router.values.data(), bias.values.data()}, of(experts)}, shared(of(1)) {
    for (DecoderLayer& layer : layers) {
      layer = {norms.values.data(), qkv.matrix(qkv_rows, width), o.matrix(width, heads * head_dim),
               norms.values.data() + width, nullptr, nullptr, &shared};
    }
    layers[1].text = layers[1].vision = &pool;
  }
};

struct Caches {
  std::vector<float> memory = std::vector<float>(2 * 2 * blocks * block_size * kv_heads * head_dim);
  KvCache layers[2];
  Caches() {
    const std::size_t one = memory.size() / 4;
    for (std::size_t l = 0; l < 2; ++l) {
      layers[l] = {memory.data() + 2 * l * one, memory.data() + (2 * l + 1) * one, nullptr, nullptr, KvFormat::f32};
    }
  }
};

// Where `count` tokens from `begin` on lie; block 1 comes before block 0.
struct Step {
  std::vector<std::int64_t> slots;
  std::vector<std::int32_t> table{1, 0}, starts, lengths;
  std::vector<float> cos, sin;
  std::vector<std::uint8_t> is_vision;

  Step(std::int64_t begin, std::int64_t count)
      : starts{0, static_cast<std::int32_t>(count)}, lengths{static_cast<std::int32_t>(begin + count)},
        cos(test::normal(static_cast<std::size_t>(count * head_dim / 2), 8)), sin(cos) {
    for (std::int64_t t = begin; t < begin + count; ++t) {
      slots.push_back(table[static_cast<std::size_t>(t / block_size)] * block_size + t % block_size);
      is_vision.push_back(t % 3 == 1);
    }
  }
  PagedAttentionArgs paged() const {
    PagedAttentionArgs a{};
    a.block_table = table.data();
    a.query_start_loc = starts.data();
    a.seq_lens = lengths.data();
    a.requests = 1;
    a.blocks_per_request = blocks;
    a.block_size = block_size;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.head_dim = head_dim;
    a.scale = 0.4F;
    return a;
  }
};

void one_by_one(const Model& model, Caches& caches, const Step& step, std::vector<float>* hidden, Isa isa) {
  const LinearKernels kernels = select_linear_kernels(isa);
  const auto count = static_cast<std::int64_t>(step.slots.size());
  for (std::size_t l = 0; l < 2; ++l) {
    const DecoderLayer& layer = model.layers[l];
    std::vector<float> qkv(static_cast<std::size_t>(count * qkv_rows)), out(static_cast<std::size_t>(count * heads * head_dim));
    linear({layer.qkv, hidden->data(), layer.input_norm, nullptr, qkv.data(), count, 1e-5F, false, Activations::float32},
           kernels);
    PagedAttentionArgs paged = step.paged();
    paged.cache = caches.layers[l];
    paged.out = out.data();
    rotary_paged_attention({qkv.data(), step.cos.data(), step.sin.data(), step.slots.data(), count, paged},
                           select_attention_kernels(isa));
    linear({layer.o, out.data(), nullptr, nullptr, hidden->data(), count, 0.0F, true, Activations::float32}, kernels);
    std::vector<float> weights(static_cast<std::size_t>(count * top_k));
    std::vector<std::int32_t> ids(weights.size());
    const bool sparse = layer.text != nullptr;
    moe({hidden->data(), layer.post_norm, hidden->data(), sparse ? step.is_vision.data() : nullptr, layer.text,
         layer.vision, layer.shared, weights.data(), ids.data(), count, width, sparse ? top_k : 0, 1e-5F, 1e-12F, true,
         Activations::float32},
        kernels);
  }
}

void as_a_stack(const Model& model, Caches& caches, const Step& step, std::vector<float>* hidden, Isa isa, bool watched) {
  const auto count = static_cast<std::int64_t>(step.slots.size());
  std::vector<float> weights(static_cast<std::size_t>(2 * count * top_k));
  std::vector<std::int32_t> ids(weights.size(), -1);
  DecoderArgs a{};
  a.layers = model.layers;
  a.caches = caches.layers;
  a.count = 2;
  a.hidden = hidden->data();
  a.tokens = count;
  a.width = width;
  a.cos = step.cos.data();
  a.sin = step.sin.data();
  a.slot_mapping = step.slots.data();
  a.paged = step.paged();
  a.is_vision = step.is_vision.data();
  a.topk_weights = watched ? weights.data() : nullptr;
  a.topk_ids = watched ? ids.data() : nullptr;
  a.top_k = top_k;
  a.eps = 1e-5F;
  a.norm_min = 1e-12F;
  a.activations = Activations::float32;
  decoder(a, select_linear_kernels(isa), select_attention_kernels(isa));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool dense = i < ids.size() / 2;  // the first layer has no experts to choose
    CHECK(!watched || dense == (ids[i] == -1));
  }
}

}  // namespace

TEST(a_stack_is_its_layers_one_by_one) {
  const Model model;
  for (const Isa isa : test::supported_isas()) {
    for (const bool watched : {false, true}) {
      Caches together, alone;
      for (std::int64_t begin = 0; begin < tokens; begin += 2) {
        const Step step(begin, std::min<std::int64_t>(2, tokens - begin));
        std::vector<float> got = test::normal(step.slots.size() * width, 9), expected = got;
        as_a_stack(model, together, step, &got, isa, watched);
        one_by_one(model, alone, step, &expected, isa);
        CHECK(got == expected);
        CHECK(together.memory == alone.memory);
      }
    }
  }
}

}  // namespace tusi
