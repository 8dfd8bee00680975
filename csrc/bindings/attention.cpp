// Indices are checked here against the arrays they point into: a kernel trusts them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "attention/attention.h"
#include "attention/bf16.h"
#include "attention/dispatch.h"
#include "bindings/checks.h"
#include "bindings/gil.h"
#include "rotary/rotary.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

std::string at(const char* name, std::int64_t index, std::int64_t value) {
  return std::string(name) + "[" + std::to_string(index) + "] is " + std::to_string(value);
}

// bounds[0] == 0, never falling, last == tokens.
void check_bounds(const View& bounds, std::int64_t tokens) {
  const std::int32_t* values = in<std::int32_t>(bounds);
  const std::int64_t count = bounds.shape[0];
  if (count < 1) refuse_value(std::string(bounds.name) + " is empty; expected a leading 0.");
  if (values[0] != 0) refuse_value(at(bounds.name, 0, values[0]) + "; expected 0, the first row of q_TNH.");
  for (std::int64_t i = 1; i < count; ++i) {
    if (values[i] < values[i - 1]) {
      refuse_value(at(bounds.name, i, values[i]) + ", less than the " + std::to_string(values[i - 1]) +
                   " before it; expected running sums of lengths.");
    }
  }
  if (values[count - 1] != tokens) {
    refuse_value(at(bounds.name, count - 1, values[count - 1]) + "; expected " + std::to_string(tokens) +
                 ", the rows of q_TNH.");
  }
}

void check_request(const View& table, const View& starts, const View& lengths, std::int64_t r, std::int64_t block_size,
                   std::int64_t cache_blocks) {
  const std::int64_t seq_len = in<std::int32_t>(lengths)[r];
  const std::int64_t queries = in<std::int32_t>(starts)[r + 1] - in<std::int32_t>(starts)[r];
  const std::int64_t width = table.shape[1];
  if (seq_len < queries || seq_len > width * block_size) {
    refuse_value(at("seq_lens_R", r, seq_len) + "; expected at least its " + std::to_string(queries) +
                 " queries and at most the " + std::to_string(width * block_size) +
                 " tokens that its row of block_table_RB holds.");
  }
  const std::int32_t* blocks = in<std::int32_t>(table) + r * width;
  for (std::int64_t b = 0; b * block_size < seq_len; ++b) {
    if (blocks[b] < 0 || blocks[b] >= cache_blocks) {
      refuse_value(at("block_table_RB", r, blocks[b]) + " at column " + std::to_string(b) +
                   "; expected a block from 0 to " + std::to_string(cache_blocks - 1) + " of the cache.");
    }
  }
}

void check_positive(const View& view) {
  for (std::size_t i = 1; i < view.shape.size(); ++i) {
    if (view.shape[i] < 1)
      refuse_value(std::string(view.name) + " has an empty axis " + std::to_string(i) + "; expected 1 or more.");
  }
}

struct Angles {
  View cos, sin;
};

Angles check_angles(const In& cos_TP, const In& sin_TP, std::int64_t tokens, std::int64_t head_dim) {
  if (head_dim % 2 != 0) {
    refuse_value("the head dim is " + std::to_string(head_dim) + "; expected an even one: pairs are rotated.");
  }
  return {check("cos_TP", cos_TP, {Dtype::f32}, {tokens, head_dim / 2}),
          check("sin_TP", sin_TP, {Dtype::f32}, {tokens, head_dim / 2})};
}

void run_varlen(const VarlenAttentionArgs& args, bool round_to_bf16, Isa isa) {
  if (round_to_bf16 && select_bf16_attention(isa) != nullptr) {
    varlen_attention_bf16(args, *select_bf16_attention(isa));
  } else {
    varlen_attention(args, select_attention_kernels(isa));
  }
}

KvFormat format_of(const View& cache) {
  return cache.dtype == Dtype::f32 ? KvFormat::f32 : cache.dtype == Dtype::u16 ? KvFormat::bf16 : KvFormat::int8;
}

// The four arrays of a cache; the scales belong to int8 and to nothing else.
struct CacheViews {
  View key, value, key_scales, value_scales;
  bool has_scales;

  std::int64_t slots() const { return key.shape[0] * key.shape[1]; }
  const float* scales(const View& view) const { return has_scales ? in<float>(view) : nullptr; }
  KvCache cache() const {
    return {key.data, value.data, scales(key_scales), scales(value_scales), format_of(key)};
  }
};

using Scales = std::optional<Out>;

CacheViews check_cache(const Out& key_cache, const Out& value_cache, const Scales& key_scales,
                       const Scales& value_scales) {
  CacheViews views{};
  views.key = check("key_cache_CSMH", key_cache, {Dtype::f32, Dtype::u16, Dtype::i8}, {any, any, any, any});
  views.value = check("value_cache_CSMH", value_cache, {views.key.dtype}, {});
  same_shape(views.value, views.key);
  check_positive(views.key);
  views.has_scales = format_of(views.key) == KvFormat::int8;
  if (key_scales.has_value() != views.has_scales || value_scales.has_value() != views.has_scales) {
    refuse_value(std::string("key_scales_CSM and value_scales_CSM are ") +
                 (key_scales || value_scales ? "given" : "None") +
                 "; an int8 cache needs both, others take neither. Pass what the cache was made with.");
  }
  if (!views.has_scales) return views;
  const std::initializer_list<std::int64_t> shape{views.key.shape[0], views.key.shape[1], views.key.shape[2]};
  views.key_scales = check("key_scales_CSM", *key_scales, {Dtype::f32}, shape);
  views.value_scales = check("value_scales_CSM", *value_scales, {Dtype::f32}, shape);
  return views;
}

// Nothing that is read may lie where the cache is written, nor keys where values are.
void check_written(const CacheViews& cache, std::initializer_list<const View*> inputs) {
  no_overlap(cache.key, cache.value, false);
  for (const View* input : inputs) {
    no_overlap(cache.key, *input, false);
    no_overlap(cache.value, *input, false);
  }
}

void check_slots(const View& slots, std::int64_t slot_count) {
  const std::int64_t* values = in<std::int64_t>(slots);
  for (std::int64_t t = 0; t < slots.shape[0]; ++t) {
    if (values[t] < 0 || values[t] >= slot_count) {
      refuse_value(at("slot_mapping_T", t, values[t]) + "; expected a slot from 0 to " +
                   std::to_string(slot_count - 1) +
                   " (block * block size + offset). Leave padding tokens out. Nothing was written.");
    }
  }
}

// Which blocks each request's tokens lie in, and which of the queries are its own.
struct BatchViews {
  View table, starts, lengths;
  std::int64_t requests() const { return lengths.shape[0]; }
};

BatchViews check_batch(const In& block_table, const In& query_start_loc, const In& seq_lens, std::int64_t tokens,
                       const View& key) {
  BatchViews batch{};
  batch.lengths = check("seq_lens_R", seq_lens, {Dtype::i32}, {any});
  batch.table = check("block_table_RB", block_table, {Dtype::i32}, {batch.requests(), any});
  batch.starts = check("query_start_loc_R1", query_start_loc, {Dtype::i32}, {batch.requests() + 1});
  check_bounds(batch.starts, tokens);
  for (std::int64_t r = 0; r < batch.requests(); ++r) {
    check_request(batch.table, batch.starts, batch.lengths, r, key.shape[1], key.shape[0]);
  }
  return batch;
}

void check_groups(const char* name, std::int64_t heads, std::int64_t kv_heads) {
  if (heads < 1 || heads % kv_heads != 0) {
    refuse_value(std::string(name) + " has " + std::to_string(heads) + " heads and key_cache_CSMH " +
                 std::to_string(kv_heads) +
                 "; expected a multiple, for each KV head serves a group of query heads.");
  }
}

PagedAttentionArgs paged_args(const float* q, std::int64_t q_stride, const CacheViews& cache, const BatchViews& batch,
                              const View& result, double scale) {
  return {q,
          q_stride,
          cache.cache(),
          in<std::int32_t>(batch.table),
          in<std::int32_t>(batch.starts),
          in<std::int32_t>(batch.lengths),
          out<float>(result),
          batch.requests(),
          batch.table.shape[1],
          cache.key.shape[1],
          result.shape[1],
          cache.key.shape[2],
          cache.key.shape[3],
          static_cast<float>(scale)};
}

void paged_attention_op(const In& q_TNH, const Out& key_cache_CSMH, const Out& value_cache_CSMH,
                        const In& block_table_RB, const In& query_start_loc_R1, const In& seq_lens_R, double scale,
                        const Scales& key_scales_CSM, const Scales& value_scales_CSM, const Out& out_TNH,
                        const IsaName& isa) {
  const View q = check("q_TNH", q_TNH, {Dtype::f32}, {any, any, any});
  const CacheViews cache = check_cache(key_cache_CSMH, value_cache_CSMH, key_scales_CSM, value_scales_CSM);
  check_positive(q);
  check("key_cache_CSMH", key_cache_CSMH, {cache.key.dtype}, {any, any, any, q.shape[2]});
  check_groups("q_TNH", q.shape[1], cache.key.shape[2]);
  const View result = check("out", out_TNH, {Dtype::f32}, {});
  same_shape(result, q);
  const BatchViews batch = check_batch(block_table_RB, query_start_loc_R1, seq_lens_R, q.shape[0], cache.key);
  for (const View* input : {&q, &cache.key, &cache.value, &batch.table, &batch.starts, &batch.lengths}) {
    no_overlap(result, *input, false);
  }
  const AttentionKernels& kernels = select_attention_kernels(choose_isa(isa));
  const ReleasedGil release;
  paged_attention(paged_args(in<float>(q), q.shape[1] * q.shape[2], cache, batch, result, scale), kernels);
}

// The attention of a decoder layer in one call: qkv_TX holds the query heads, then the key heads, then the value heads
// of each token. Queries and keys are turned in place, keys and values stored, then the queries attend.
void rotary_paged_attention_op(const Out& qkv_TX, const In& cos_TP, const In& sin_TP, const In& slot_mapping_T,
                               const Out& key_cache_CSMH, const Out& value_cache_CSMH, const In& block_table_RB,
                               const In& query_start_loc_R1, const In& seq_lens_R, double scale,
                               const Scales& key_scales_CSM, const Scales& value_scales_CSM, const Out& out_TNH,
                               const IsaName& isa) {
  const CacheViews cache = check_cache(key_cache_CSMH, value_cache_CSMH, key_scales_CSM, value_scales_CSM);
  const std::int64_t kv_heads = cache.key.shape[2], head_dim = cache.key.shape[3];
  const View result = check("out", out_TNH, {Dtype::f32}, {any, any, head_dim});
  const std::int64_t tokens = result.shape[0], heads = result.shape[1];
  check_groups("out", heads, kv_heads);
  const View qkv = check("qkv_TX", qkv_TX, {Dtype::f32}, {tokens, (heads + 2 * kv_heads) * head_dim});
  const auto [cos, sin] = check_angles(cos_TP, sin_TP, tokens, head_dim);
  const View slots = check("slot_mapping_T", slot_mapping_T, {Dtype::i64}, {tokens});
  check_slots(slots, cache.slots());
  const BatchViews batch = check_batch(block_table_RB, query_start_loc_R1, seq_lens_R, tokens, cache.key);
  check_written(cache, {&qkv, &cos, &sin, &slots, &batch.table, &batch.starts, &batch.lengths});
  for (const View* input : {&qkv, &cos, &sin, &cache.key, &cache.value, &batch.table, &batch.starts, &batch.lengths}) {
    no_overlap(result, *input, false);
  }
  for (const View* input : {&cos, &sin}) no_overlap(qkv, *input, false);
  const AttentionKernels& kernels = select_attention_kernels(choose_isa(isa));
  const ReleasedGil release;
  float* q = out<float>(qkv);
  const std::int64_t stride = qkv.shape[1];
  rotary_interleaved({q, in<float>(cos), in<float>(sin), q, tokens, heads + kv_heads, head_dim, stride});
  const float* k = q + heads * head_dim;
  store_kv({k, k + kv_heads * head_dim, stride, in<std::int64_t>(slots), out<void>(cache.key), out<void>(cache.value),
            cache.has_scales ? out<float>(cache.key_scales) : nullptr,
            cache.has_scales ? out<float>(cache.value_scales) : nullptr, tokens, kv_heads, head_dim,
            format_of(cache.key)});
  paged_attention(paged_args(q, stride, cache, batch, result, scale), kernels);
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

void store_kv_op(const In& key_TMH, const In& value_TMH, const In& slot_mapping_T, const Out& key_cache_CSMH,
                 const Out& value_cache_CSMH, const Scales& key_scales_CSM, const Scales& value_scales_CSM) {
  const View key = check("key_TMH", key_TMH, {Dtype::f32}, {any, any, any});
  const View value = check("value_TMH", value_TMH, {Dtype::f32}, {});
  same_shape(value, key);
  const View slots = check("slot_mapping_T", slot_mapping_T, {Dtype::i64}, {key.shape[0]});
  const CacheViews cache = check_cache(key_cache_CSMH, value_cache_CSMH, key_scales_CSM, value_scales_CSM);
  const std::int64_t kv_heads = key.shape[1], head_dim = key.shape[2];
  check("key_cache_CSMH", key_cache_CSMH, {cache.key.dtype}, {any, any, kv_heads, head_dim});
  check_written(cache, {&key, &value, &slots});
  check_slots(slots, cache.slots());
  const ReleasedGil release;
  store_kv({in<float>(key), in<float>(value), kv_heads * head_dim, in<std::int64_t>(slots), out<void>(cache.key),
            out<void>(cache.value), cache.has_scales ? out<float>(cache.key_scales) : nullptr,
            cache.has_scales ? out<float>(cache.value_scales) : nullptr, key.shape[0], kv_heads, head_dim,
            format_of(cache.key)});
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("paged_attention", &paged_attention_op, "q_TNH"_a.noconvert(), "key_cache_CSMH"_a.noconvert(),
        "value_cache_CSMH"_a.noconvert(), "block_table_RB"_a.noconvert(), "query_start_loc_R1"_a.noconvert(),
        "seq_lens_R"_a.noconvert(), "scale"_a, "key_scales_CSM"_a.noconvert().none(),
        "value_scales_CSM"_a.noconvert().none(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("rotary_paged_attention", &rotary_paged_attention_op, "qkv_TX"_a.noconvert(), "cos_TP"_a.noconvert(),
        "sin_TP"_a.noconvert(), "slot_mapping_T"_a.noconvert(), "key_cache_CSMH"_a.noconvert(),
        "value_cache_CSMH"_a.noconvert(), "block_table_RB"_a.noconvert(), "query_start_loc_R1"_a.noconvert(),
        "seq_lens_R"_a.noconvert(), "scale"_a, "key_scales_CSM"_a.noconvert().none(),
        "value_scales_CSM"_a.noconvert().none(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("varlen_attention", &varlen_attention_op, "q_TNH"_a.noconvert(), "k_TNH"_a.noconvert(), "v_TNH"_a.noconvert(),
        "cu_seqlens"_a.noconvert(), "scale"_a, "round_to_bf16"_a, "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("rotary_varlen_attention", &rotary_varlen_attention_op, "qkv_TX"_a.noconvert(), "cos_TP"_a.noconvert(),
        "sin_TP"_a.noconvert(), "cu_seqlens"_a.noconvert(), "scale"_a, "round_to_bf16"_a, "out"_a.noconvert(),
        "isa"_a = nb::none());
  m.def("store_kv", &store_kv_op, "key_TMH"_a.noconvert(), "value_TMH"_a.noconvert(), "slot_mapping_T"_a.noconvert(),
        "key_cache_CSMH"_a.noconvert(), "value_cache_CSMH"_a.noconvert(), "key_scales_CSM"_a.noconvert().none(),
        "value_scales_CSM"_a.noconvert().none());
}

}  // namespace tusi::bindings
