// What attention ops say about their arrays: caches, angles, and how a batch lies over requests and cache blocks. Indices
// are checked against the arrays they point into: a kernel trusts them.
#pragma once

#include "attention/attention.h"
#include "bindings/checks.h"

namespace tusi::bindings {

// bounds[0] == 0, never falling, last == tokens.
void check_bounds(const View& bounds, std::int64_t tokens);

void check_positive(const View& view);

struct Angles {
  View cos, sin;
};

Angles check_angles(const In& cos_TP, const In& sin_TP, std::int64_t tokens, std::int64_t head_dim);

KvFormat format_of(const View& cache);

// The four arrays of a cache; the scales belong to int8 and to nothing else.
struct CacheViews {
  View key, value, key_scales, value_scales;
  bool has_scales;

  std::int64_t blocks() const { return key.shape[0]; }
  std::int64_t kv_heads() const { return key.shape[1]; }
  std::int64_t head_dim() const { return key.shape[2]; }
  std::int64_t block_size() const { return key.shape[3]; }
  std::int64_t slots() const { return blocks() * block_size(); }
  float* scales(const View& view) const { return has_scales ? out<float>(view) : nullptr; }
  KvCache cache() const {
    return {out<void>(key), out<void>(value), scales(key_scales), scales(value_scales), format_of(key)};
  }
};

using Scales = std::optional<Out>;

CacheViews check_cache(const Out& key_cache, const Out& value_cache, const Scales& key_scales,
                       const Scales& value_scales);

// Nothing that is read may lie where the cache is written, nor keys where values are.
void check_written(const CacheViews& cache, std::initializer_list<const View*> inputs);

void check_slots(const View& slots, std::int64_t slot_count);

// Which blocks each request's tokens lie in, and which of the queries are its own.
struct BatchViews {
  View table, starts, lengths;
  std::int64_t requests() const { return lengths.shape[0]; }
};

BatchViews check_batch(const In& block_table, const In& query_start_loc, const In& seq_lens, std::int64_t tokens,
                       const CacheViews& cache);

void check_groups(const char* name, std::int64_t heads, std::int64_t kv_heads);

// heads: of the queries. The queries and where the result goes are left to the caller.
PagedAttentionArgs paged_args(const CacheViews& cache, const BatchViews& batch, std::int64_t heads, double scale);

}  // namespace tusi::bindings
