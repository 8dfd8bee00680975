#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "attention/attention.h"
#include "attention/bf16.h"
#include "attention/dispatch.h"
#include "attention/layer.h"
#include "bindings/attention_checks.h"
#include "bindings/gil.h"
#include "rotary/rotary.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

void run_varlen(const VarlenAttentionArgs& args, bool round_to_bf16, Isa isa) {
  if (round_to_bf16 && select_bf16_attention(isa) != nullptr) {
    varlen_attention_bf16(args, *select_bf16_attention(isa));
  } else {
    varlen_attention(args, select_attention_kernels(isa));
  }
}

void paged_attention_op(const In& q_TNH, const Out& key_cache_CMHS, const Out& value_cache_CMSH,
                        const In& block_table_RB, const In& query_start_loc_R1, const In& seq_lens_R, double scale,
                        const Scales& key_scales_CMS, const Scales& value_scales_CMS, const Out& out_TNH,
                        const IsaName& isa) {
  const View q = check("q_TNH", q_TNH, {Dtype::f32}, {any, any, any});
  const CacheViews cache = check_cache(key_cache_CMHS, value_cache_CMSH, key_scales_CMS, value_scales_CMS);
  check_positive(q);
  check("key_cache_CMHS", key_cache_CMHS, {cache.key.dtype}, {any, any, q.shape[2], any});
  check_groups("q_TNH", q.shape[1], cache.kv_heads());
  const View result = check("out", out_TNH, {Dtype::f32}, {});
  same_shape(result, q);
  const BatchViews batch = check_batch(block_table_RB, query_start_loc_R1, seq_lens_R, q.shape[0], cache);
  for (const View* input : {&q, &cache.key, &cache.value, &batch.table, &batch.starts, &batch.lengths}) {
    no_overlap(result, *input, false);
  }
  const AttentionKernels& kernels = select_attention_kernels(choose_isa(isa));
  const ReleasedGil release;
  PagedAttentionArgs args = paged_args(cache, batch, q.shape[1], scale);
  args.q = in<float>(q);
  args.q_stride = q.shape[1] * q.shape[2];
  args.out = out<float>(result);
  paged_attention(args, kernels);
}

void rotary_paged_attention_op(const Out& qkv_TX, const In& cos_TP, const In& sin_TP, const In& slot_mapping_T,
                               const Out& key_cache_CMHS, const Out& value_cache_CMSH, const In& block_table_RB,
                               const In& query_start_loc_R1, const In& seq_lens_R, double scale,
                               const Scales& key_scales_CMS, const Scales& value_scales_CMS, const Out& out_TNH,
                               const IsaName& isa) {
  const CacheViews cache = check_cache(key_cache_CMHS, value_cache_CMSH, key_scales_CMS, value_scales_CMS);
  const std::int64_t kv_heads = cache.kv_heads(), head_dim = cache.head_dim();
  const View result = check("out", out_TNH, {Dtype::f32}, {any, any, head_dim});
  const std::int64_t tokens = result.shape[0], heads = result.shape[1];
  check_groups("out", heads, kv_heads);
  const View qkv = check("qkv_TX", qkv_TX, {Dtype::f32}, {tokens, (heads + 2 * kv_heads) * head_dim});
  const auto [cos, sin] = check_angles(cos_TP, sin_TP, tokens, head_dim);
  const View slots = check("slot_mapping_T", slot_mapping_T, {Dtype::i64}, {tokens});
  check_slots(slots, cache.slots());
  const BatchViews batch = check_batch(block_table_RB, query_start_loc_R1, seq_lens_R, tokens, cache);
  check_written(cache, {&qkv, &cos, &sin, &slots, &batch.table, &batch.starts, &batch.lengths});
  for (const View* input : {&qkv, &cos, &sin, &cache.key, &cache.value, &batch.table, &batch.starts, &batch.lengths}) {
    no_overlap(result, *input, false);
  }
  for (const View* input : {&cos, &sin}) no_overlap(qkv, *input, false);
  const AttentionKernels& kernels = select_attention_kernels(choose_isa(isa));
  const ReleasedGil release;
  PagedAttentionArgs args = paged_args(cache, batch, heads, scale);
  args.out = out<float>(result);
  rotary_paged_attention({out<float>(qkv), in<float>(cos), in<float>(sin), in<std::int64_t>(slots), tokens, args},
                         kernels);
}

void varlen_attention_op(const In& q_TNH, const In& k_TNH, const In& v_TNH, const In& cu_seqlens, double scale,
                         bool round_to_bf16, const Out& out_TNH, const IsaName& isa) {
  const View q = check("q_TNH", q_TNH, {Dtype::f32}, {any, any, any});
  const View k = check("k_TNH", k_TNH, {Dtype::f32}, {});
  const View v = check("v_TNH", v_TNH, {Dtype::f32}, {});
  const View result = check("out", out_TNH, {Dtype::f32}, {});
  for (const View* other : {&k, &v, &result}) same_shape(*other, q);
  check_positive(q);
  const View bounds = check("cu_seqlens", cu_seqlens, {Dtype::i32}, {any});
  check_bounds(bounds, q.shape[0]);
  for (const View* input : {&q, &k, &v, &bounds}) no_overlap(result, *input, false);
  const Isa chosen = choose_isa(isa);
  const ReleasedGil release;
  run_varlen({in<float>(q), in<float>(k), in<float>(v), q.shape[1] * q.shape[2], in<std::int32_t>(bounds),
              out<float>(result), bounds.shape[0] - 1, q.shape[1], q.shape[2], static_cast<float>(scale)},
             round_to_bf16, chosen);
}

// The attention of a vision block in one call: qkv_TX holds the query, key and value heads of each token. Queries and
// keys are turned in place, then attend within their segment.
void rotary_varlen_attention_op(const Out& qkv_TX, const In& cos_TP, const In& sin_TP, const In& cu_seqlens,
                                double scale, bool round_to_bf16, const Out& out_TNH, const IsaName& isa) {
  const View result = check("out", out_TNH, {Dtype::f32}, {any, any, any});
  check_positive(result);
  const std::int64_t tokens = result.shape[0], heads = result.shape[1], head_dim = result.shape[2];
  const View qkv = check("qkv_TX", qkv_TX, {Dtype::f32}, {tokens, 3 * heads * head_dim});
  const auto [cos, sin] = check_angles(cos_TP, sin_TP, tokens, head_dim);
  const View bounds = check("cu_seqlens", cu_seqlens, {Dtype::i32}, {any});
  check_bounds(bounds, tokens);
  for (const View* input : {&qkv, &cos, &sin, &bounds}) no_overlap(result, *input, false);
  for (const View* input : {&cos, &sin, &bounds}) no_overlap(qkv, *input, false);
  const Isa chosen = choose_isa(isa);
  const ReleasedGil release;
  float* q = out<float>(qkv);
  const std::int64_t width = heads * head_dim;
  rotary_half({q, in<float>(cos), in<float>(sin), q, tokens, 2 * heads, head_dim, 3 * width});
  run_varlen({q, q + width, q + 2 * width, 3 * width, in<std::int32_t>(bounds), out<float>(result),
              bounds.shape[0] - 1, heads, head_dim, static_cast<float>(scale)},
             round_to_bf16, chosen);
}

void store_kv_op(const In& key_TMH, const In& value_TMH, const In& slot_mapping_T, const Out& key_cache_CMHS,
                 const Out& value_cache_CMSH, const Scales& key_scales_CMS, const Scales& value_scales_CMS) {
  const View key = check("key_TMH", key_TMH, {Dtype::f32}, {any, any, any});
  const View value = check("value_TMH", value_TMH, {Dtype::f32}, {});
  same_shape(value, key);
  const View slots = check("slot_mapping_T", slot_mapping_T, {Dtype::i64}, {key.shape[0]});
  const CacheViews cache = check_cache(key_cache_CMHS, value_cache_CMSH, key_scales_CMS, value_scales_CMS);
  const std::int64_t kv_heads = key.shape[1], head_dim = key.shape[2];
  check("key_cache_CMHS", key_cache_CMHS, {cache.key.dtype}, {any, kv_heads, head_dim, any});
  check_written(cache, {&key, &value, &slots});
  check_slots(slots, cache.slots());
  const ReleasedGil release;
  store_kv({in<float>(key), in<float>(value), kv_heads * head_dim, in<std::int64_t>(slots), cache.cache(), key.shape[0],
            kv_heads, head_dim, cache.block_size()});
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("paged_attention", &paged_attention_op, "q_TNH"_a.noconvert(), "key_cache_CMHS"_a.noconvert(),
        "value_cache_CMSH"_a.noconvert(), "block_table_RB"_a.noconvert(), "query_start_loc_R1"_a.noconvert(),
        "seq_lens_R"_a.noconvert(), "scale"_a, "key_scales_CMS"_a.noconvert().none(),
        "value_scales_CMS"_a.noconvert().none(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("rotary_paged_attention", &rotary_paged_attention_op, "qkv_TX"_a.noconvert(), "cos_TP"_a.noconvert(),
        "sin_TP"_a.noconvert(), "slot_mapping_T"_a.noconvert(), "key_cache_CMHS"_a.noconvert(),
        "value_cache_CMSH"_a.noconvert(), "block_table_RB"_a.noconvert(), "query_start_loc_R1"_a.noconvert(),
        "seq_lens_R"_a.noconvert(), "scale"_a, "key_scales_CMS"_a.noconvert().none(),
        "value_scales_CMS"_a.noconvert().none(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("varlen_attention", &varlen_attention_op, "q_TNH"_a.noconvert(), "k_TNH"_a.noconvert(), "v_TNH"_a.noconvert(),
        "cu_seqlens"_a.noconvert(), "scale"_a, "round_to_bf16"_a, "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("rotary_varlen_attention", &rotary_varlen_attention_op, "qkv_TX"_a.noconvert(), "cos_TP"_a.noconvert(),
        "sin_TP"_a.noconvert(), "cu_seqlens"_a.noconvert(), "scale"_a, "round_to_bf16"_a, "out"_a.noconvert(),
        "isa"_a = nb::none());
  m.def("store_kv", &store_kv_op, "key_TMH"_a.noconvert(), "value_TMH"_a.noconvert(), "slot_mapping_T"_a.noconvert(),
        "key_cache_CMHS"_a.noconvert(), "value_cache_CMSH"_a.noconvert(), "key_scales_CMS"_a.noconvert().none(),
        "value_scales_CMS"_a.noconvert().none());
}

}  // namespace tusi::bindings
