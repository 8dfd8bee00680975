#include "bindings/attention_checks.h"

namespace tusi::bindings {
namespace {

std::string at(const char* name, std::int64_t index, std::int64_t value) {
  return std::string(name) + "[" + std::to_string(index) + "] is " + std::to_string(value);
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

}  // namespace

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

void check_positive(const View& view) {
  for (std::size_t i = 1; i < view.shape.size(); ++i) {
    if (view.shape[i] < 1)
      refuse_value(std::string(view.name) + " has an empty axis " + std::to_string(i) + "; expected 1 or more.");
  }
}

Angles check_angles(const In& cos_TP, const In& sin_TP, std::int64_t tokens, std::int64_t head_dim) {
  if (head_dim % 2 != 0) {
    refuse_value("the head dim is " + std::to_string(head_dim) + "; expected an even one: pairs are rotated.");
  }
  return {check("cos_TP", cos_TP, {Dtype::f32}, {tokens, head_dim / 2}),
          check("sin_TP", sin_TP, {Dtype::f32}, {tokens, head_dim / 2})};
}

KvFormat format_of(const View& cache) {
  return cache.dtype == Dtype::f32 ? KvFormat::f32 : cache.dtype == Dtype::u16 ? KvFormat::bf16 : KvFormat::int8;
}

CacheViews check_cache(const Out& key_cache, const Out& value_cache, const Scales& key_scales,
                       const Scales& value_scales) {
  CacheViews views{};
  views.key = check("key_cache_CMHS", key_cache, {Dtype::f32, Dtype::u16, Dtype::i8}, {any, any, any, any});
  check_positive(views.key);
  views.value = check("value_cache_CMSH", value_cache, {views.key.dtype},
                      {views.blocks(), views.kv_heads(), views.block_size(), views.head_dim()});
  views.has_scales = format_of(views.key) == KvFormat::int8;
  if (key_scales.has_value() != views.has_scales || value_scales.has_value() != views.has_scales) {
    refuse_value(std::string("key_scales_CMS and value_scales_CMS are ") +
                 (key_scales || value_scales ? "given" : "None") +
                 "; an int8 cache needs both, others take neither. Pass what the cache was made with.");
  }
  if (!views.has_scales) return views;
  const std::initializer_list<std::int64_t> shape{views.blocks(), views.kv_heads(), views.block_size()};
  views.key_scales = check("key_scales_CMS", *key_scales, {Dtype::f32}, shape);
  views.value_scales = check("value_scales_CMS", *value_scales, {Dtype::f32}, shape);
  return views;
}

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

BatchViews check_batch(const In& block_table, const In& query_start_loc, const In& seq_lens, std::int64_t tokens,
                       const CacheViews& cache) {
  BatchViews batch{};
  batch.lengths = check("seq_lens_R", seq_lens, {Dtype::i32}, {any});
  batch.table = check("block_table_RB", block_table, {Dtype::i32}, {batch.requests(), any});
  batch.starts = check("query_start_loc_R1", query_start_loc, {Dtype::i32}, {batch.requests() + 1});
  check_bounds(batch.starts, tokens);
  for (std::int64_t r = 0; r < batch.requests(); ++r) {
    check_request(batch.table, batch.starts, batch.lengths, r, cache.block_size(), cache.blocks());
  }
  return batch;
}

void check_groups(const char* name, std::int64_t heads, std::int64_t kv_heads) {
  if (heads < 1 || heads % kv_heads != 0) {
    refuse_value(std::string(name) + " has " + std::to_string(heads) + " heads and key_cache_CMHS " +
                 std::to_string(kv_heads) +
                 "; expected a multiple, for each KV head serves a group of query heads.");
  }
}

PagedAttentionArgs paged_args(const CacheViews& cache, const BatchViews& batch, std::int64_t heads, double scale) {
  PagedAttentionArgs args{};
  args.cache = cache.cache();
  args.block_table = in<std::int32_t>(batch.table);
  args.query_start_loc = in<std::int32_t>(batch.starts);
  args.seq_lens = in<std::int32_t>(batch.lengths);
  args.requests = batch.requests();
  args.blocks_per_request = batch.table.shape[1];
  args.block_size = cache.block_size();
  args.heads = heads;
  args.kv_heads = cache.kv_heads();
  args.head_dim = cache.head_dim();
  args.scale = static_cast<float>(scale);
  return args;
}

}  // namespace tusi::bindings
