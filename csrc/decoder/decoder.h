// All layers of the decoder in one call: what lies between two products of a layer, and between two layers, takes less
// time than going back to Python, which matters where a token passes a layer in less than a millisecond.
//
//   for each layer:   h += o(attention(qkv(norm(h))))        keys and values are stored in the layer's cache
//                     h += moe(norm(h))
#pragma once

#include <cstdint>

#include "attention/attention.h"
#include "linear/linear.h"
#include "moe/moe.h"

namespace tusi {

struct DecoderLayer {
  const float* input_norm;  // [D]
  Matrix qkv, o;
  const float* post_norm;  // [D]
  const Pool* text;        // null: a dense MLP, which is `shared`
  const Pool* vision;
  const Experts* shared;   // or null
};

struct DecoderArgs {
  const DecoderLayer* layers;
  const KvCache* caches;  // one a layer
  std::int64_t count;     // L
  float* hidden;          // [T][D], in place
  std::int64_t tokens, width;
  const float* cos;  // [T][H / 2]
  const float* sin;
  const std::int64_t* slot_mapping;  // [T]
  PagedAttentionArgs paged;          // all but q, q_stride, cache and out
  const std::uint8_t* is_vision;     // [T] or null: all are text
  float* topk_weights;               // [L][T][K], or null if nobody asks; rows of dense layers are left alone
  std::int32_t* topk_ids;
  std::int64_t top_k;
  float eps, norm_min;
  Activations activations;
};

void decoder(const DecoderArgs& args, const LinearKernels& linear_kernels, const AttentionKernels& attention_kernels);

}  // namespace tusi
