// Each ISA against a plain softmax in double precision over the same cache.
#include <algorithm>
#include <cstring>

#include "attention/attention.h"
#include "attention/dispatch.h"
#include "check.h"
#include "convert/convert.h"
#include "core/thread_pool.h"
#include "softmax_average.h"

namespace tusi {
namespace {

constexpr std::int64_t heads = 6, kv_heads = 2, cache_slots = 800;

// Keys and values as they are read: [cache_blocks * block_size][kv_heads][head_dim]; the cache that holds them beside.
struct Paged {
  std::int64_t head_dim, block_size, cache_blocks;
  std::vector<float> q, key, value, key_floats, value_floats;
  std::vector<std::uint16_t> key_bits, value_bits;
  std::vector<std::int8_t> key_bytes, value_bytes;
  std::vector<float> key_scales, value_scales;
  KvFormat format = KvFormat::f32;
  std::vector<std::int32_t> table, starts{0}, lengths;
  std::int64_t width = 0;

  Paged(std::int64_t dim, std::int64_t slots, const std::vector<std::pair<int, int>>& requests)
      : head_dim(dim), block_size(slots), cache_blocks(cache_slots / slots) {
    const std::size_t cache = static_cast<std::size_t>(cache_blocks * block_size * kv_heads * dim);
    key = test::normal(cache, 2);
    value = test::normal(cache, 3);
    for (const auto& [queries, tokens] : requests) {
      starts.push_back(starts.back() + queries);
      lengths.push_back(tokens);
      width = std::max<std::int64_t>(width, (tokens + block_size - 1) / block_size);
    }
    int next = 0;
    for (const auto& [queries, tokens] : requests) {
      for (std::int64_t b = 0; b < width; ++b) {
        const bool used = b * block_size < tokens;
        table.push_back(used ? (next++ * 7) % static_cast<int>(cache_blocks) : 1 << 30);
      }
    }
    q = test::normal(static_cast<std::size_t>(starts.back() * heads * dim), 1);
  }

  // Stores the cache as `to`, and makes key and value what is read from it.
  void fill_cache(KvFormat to) {
    format = to;
    const std::int64_t slots = cache_blocks * block_size;
    const std::size_t count = key.size();
    key_floats.resize(count);
    value_floats.resize(count);
    key_bits.resize(count);
    value_bits.resize(count);
    key_bytes.resize(count);
    value_bytes.resize(count);
    key_scales.resize(count / static_cast<std::size_t>(head_dim));
    value_scales.resize(key_scales.size());
    std::vector<std::int64_t> all(static_cast<std::size_t>(slots));
    for (std::int64_t i = 0; i < slots; ++i) all[static_cast<std::size_t>(i)] = i;
    store_kv({key.data(), value.data(), kv_heads * head_dim, all.data(), cache(), slots, kv_heads, head_dim, block_size});
    for (std::int64_t at = 0; at < slots; ++at) {
      for (std::int64_t m = 0; m < kv_heads; ++m) {
        for (std::int64_t h = 0; h < head_dim; ++h) read(at, m, h);
      }
    }
  }

  void read(std::int64_t slot, std::int64_t m, std::int64_t h) {
    const std::int64_t head = slot / block_size * kv_heads + m, offset = slot % block_size;
    const auto of_key = static_cast<std::size_t>((head * head_dim + h) * block_size + offset);
    const auto of_value = static_cast<std::size_t>((head * block_size + offset) * head_dim + h);
    const auto scale = static_cast<std::size_t>(head * block_size + offset);
    const auto to = static_cast<std::size_t>((slot * kv_heads + m) * head_dim + h);
    switch (format) {
      case KvFormat::f32:
        key[to] = key_floats[of_key];
        value[to] = value_floats[of_value];
        break;
      case KvFormat::bf16:
        widen_bf16(&key_bits[of_key], &key[to], 1);
        widen_bf16(&value_bits[of_value], &value[to], 1);
        break;
      case KvFormat::int8:
        key[to] = static_cast<float>(key_bytes[of_key]) * key_scales[scale];
        value[to] = static_cast<float>(value_bytes[of_value]) * value_scales[scale];
        break;
    }
  }

  KvCache cache() {
    if (format == KvFormat::f32) return {key_floats.data(), value_floats.data(), nullptr, nullptr, format};
    if (format == KvFormat::bf16) return {key_bits.data(), value_bits.data(), nullptr, nullptr, format};
    return {key_bytes.data(), value_bytes.data(), key_scales.data(), value_scales.data(), format};
  }

  PagedAttentionArgs args(float* out) {
    const std::int64_t requests = static_cast<std::int64_t>(lengths.size());
    return {q.data(),      heads * head_dim, cache(), table.data(), starts.data(), lengths.data(), out,
            requests,      width,            block_size, heads,     kv_heads,      head_dim,       0.25F};
  }

  test::AttentionRow row(std::size_t r, std::int64_t t, std::int64_t head) const {
    test::AttentionRow found{q.data() + (t * heads + head) * head_dim, {}, {}};
    const std::int64_t limit = lengths[r] - (starts[r + 1] - t) + 1;
    for (std::int64_t p = 0; p < limit; ++p) {
      const std::int64_t block = table[r * static_cast<std::size_t>(width) + static_cast<std::size_t>(p / block_size)];
      const std::int64_t at = ((block * block_size + p % block_size) * kv_heads + head / (heads / kv_heads)) * head_dim;
      found.keys.push_back(key.data() + at);
      found.values.push_back(value.data() + at);
    }
    return found;
  }
};

void check_paged(std::int64_t head_dim, std::int64_t block_size, KvFormat format) {
  Paged p(head_dim, block_size, {{1, 1}, {1, 66}, {17, 17}, {0, 0}, {3, 64}, {2, 600}});
  const std::vector<float> written = p.key;
  p.fill_cache(format);
  for (std::size_t i = 0; i < written.size(); ++i) CHECK(std::fabs(p.key[i] - written[i]) < 0.03F);
  for (const Isa isa : test::supported_isas()) {
    test::Guarded out(p.q.size());
    paged_attention(p.args(out.data()), select_attention_kernels(isa));
    CHECK(out.intact());
    for (std::size_t r = 0; r < p.lengths.size(); ++r) {
      for (std::int64_t t = p.starts[r]; t < p.starts[r + 1]; ++t) {
        for (std::int64_t n = 0; n < heads; ++n) {
          test::check_row(p.row(r, t, n), out.data() + (t * heads + n) * head_dim, head_dim, 0.25, 8e-6, 1e-5);
        }
      }
    }
  }
}

TEST(paged_attention_equals_a_plain_softmax) {
  for (const std::int64_t head_dim : {8, 20, 24, 80, 128}) {
    for (const KvFormat format : {KvFormat::f32, KvFormat::bf16, KvFormat::int8}) {
      for (const std::int64_t block_size : {5, 16}) check_paged(head_dim, block_size, format);
    }
  }
}

TEST(one_long_context_is_the_same_on_any_threads) {
  for (const Isa isa : test::supported_isas()) {
    Paged p(80, 16, {{1, 700}});
    p.fill_cache(KvFormat::bf16);
    std::vector<float> alone(p.q.size()), together(p.q.size());
    const int before = num_threads();
    set_num_threads(1);
    paged_attention(p.args(alone.data()), select_attention_kernels(isa));
    set_num_threads(3);
    paged_attention(p.args(together.data()), select_attention_kernels(isa));
    set_num_threads(before);
    CHECK(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float)) == 0);
  }
}

TEST(softmax_keeps_nan_and_forgets_minus_infinity) {
  for (const Isa isa : test::supported_isas()) {
    const AttentionKernels& kernels = select_attention_kernels(isa);
    float s[key_span] = {1.0F, -INFINITY, -200.0F, 1.0F, 9.0F};
    const SpanSum span = kernels.softmax(s, nullptr, 4, 16);
    CHECK(s[0] == 1.0F && s[1] == 0.0F && s[2] == 0.0F && s[3] == 1.0F && s[4] == 0.0F);
    CHECK(span.max == 1.0F && span.sum == 2.0F);
    float next[key_span] = {0.0F, NAN};
    CHECK(std::isnan(kernels.softmax(next, nullptr, 2, 16).sum) && std::isnan(next[1]));
    const float scales[16] = {2.0F, 1.0F, 1.0F, 0.5F};
    float scaled[key_span] = {1.0F, -INFINITY, -200.0F, 1.0F, 9.0F};
    CHECK(kernels.softmax(scaled, scales, 4, 16).sum == 2.0F);  // scales weigh values, not the sum
    CHECK(scaled[0] == 2.0F && scaled[1] == 0.0F && scaled[3] == 0.5F && scaled[4] == 0.0F);
    float part[16] = {4.0F}, out[16] = {};
    SpanSum total{-INFINITY, 0.0F};
    kernels.merge(part, span, out, &total, 16);
    CHECK(out[0] == 4.0F && out[1] == 0.0F && total.max == 1.0F && total.sum == 2.0F);
    kernels.merge(part, {-500.0F, 3.0F}, out, &total, 16);  // too small to count
    CHECK(out[0] == 4.0F && total.max == 1.0F && total.sum == 2.0F);
  }
}

}  // namespace
}  // namespace tusi
