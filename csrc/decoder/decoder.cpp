#include "decoder/decoder.h"

#include "attention/layer.h"
#include "core/scratch.h"

namespace tusi {
namespace {

struct Buffers {
  Scratch qkv, attended, weights, ids;
};

void attend(const DecoderArgs& a, std::int64_t number, const LinearKernels& linear_kernels,
            const AttentionKernels& attention_kernels, Buffers& work) {
  const DecoderLayer& layer = a.layers[number];
  float* qkv = work.qkv.take<float>(a.tokens * rows_of(layer.qkv));
  linear({layer.qkv, a.hidden, layer.input_norm, nullptr, qkv, a.tokens, a.eps, false, a.activations}, linear_kernels);
  PagedAttentionArgs paged = a.paged;
  paged.cache = a.caches[number];
  paged.out = work.attended.take<float>(a.tokens * inner_of(layer.o));
  rotary_paged_attention({qkv, a.cos, a.sin, a.slot_mapping, a.tokens, paged}, attention_kernels);
  linear({layer.o, paged.out, nullptr, nullptr, a.hidden, a.tokens, a.eps, true, a.activations}, linear_kernels);
}

void feed_forward(const DecoderArgs& a, std::int64_t number, const LinearKernels& kernels, Buffers& work) {
  const DecoderLayer& layer = a.layers[number];
  MoeArgs m{};
  m.x = m.out = a.hidden;
  m.norm_weight = layer.post_norm;
  m.text = layer.text;
  m.shared = layer.shared;
  m.tokens = a.tokens;
  m.width = a.width;
  m.eps = a.eps;
  m.norm_min = a.norm_min;
  m.add = true;
  m.activations = a.activations;
  if (layer.text != nullptr) {
    m.is_vision = a.is_vision;
    m.vision = a.is_vision == nullptr ? nullptr : layer.vision;
    m.top_k = a.top_k;
    const std::int64_t choices = a.tokens * a.top_k;
    m.topk_weights = a.topk_weights != nullptr ? a.topk_weights + number * choices : work.weights.take<float>(choices);
    m.topk_ids = a.topk_ids != nullptr ? a.topk_ids + number * choices : work.ids.take<std::int32_t>(choices);
  }
  moe(m, kernels);
}

}  // namespace

void decoder(const DecoderArgs& args, const LinearKernels& linear_kernels, const AttentionKernels& attention_kernels) {
  if (args.tokens == 0) return;
  thread_local Buffers work;
  for (std::int64_t number = 0; number < args.count; ++number) {
    attend(args, number, linear_kernels, attention_kernels, work);
    feed_forward(args, number, linear_kernels, work);
  }
}

}  // namespace tusi
