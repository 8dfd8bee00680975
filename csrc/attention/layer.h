// The attention of a decoder layer between its two products: queries and keys are turned, keys and values stored, then
// the queries attend.
#pragma once

#include "attention/attention.h"

namespace tusi {

struct RotaryAttentionArgs {
  float* qkv;                        // [T][(N + 2M) * H]: query, key and value heads; turned in place
  const float* cos;                  // [T][H / 2]
  const float* sin;
  const std::int64_t* slot_mapping;  // [T]
  std::int64_t tokens;
  PagedAttentionArgs paged;          // all but q and q_stride
};

void rotary_paged_attention(const RotaryAttentionArgs& args, const AttentionKernels& kernels);

}  // namespace tusi
