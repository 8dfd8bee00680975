#include "attention/layer.h"

#include "rotary/rotary.h"

namespace tusi {

void rotary_paged_attention(const RotaryAttentionArgs& a, const AttentionKernels& kernels) {
  PagedAttentionArgs paged = a.paged;
  const std::int64_t heads = paged.heads, kv_heads = paged.kv_heads, head_dim = paged.head_dim;
  const std::int64_t stride = (heads + 2 * kv_heads) * head_dim;
  rotary_interleaved({a.qkv, a.cos, a.sin, a.qkv, a.tokens, heads + kv_heads, head_dim, stride});
  const float* key = a.qkv + heads * head_dim;
  store_kv({key, key + kv_heads * head_dim, stride, a.slot_mapping, paged.cache, a.tokens, kv_heads, head_dim,
            paged.block_size});
  paged.q = a.qkv;
  paged.q_stride = stride;
  paged_attention(paged, kernels);
}

}  // namespace tusi
