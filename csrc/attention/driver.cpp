// Splits attention into (request, KV head, block of queries), gathers tiles and runs an ISA's kernels over them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "attention/attention.h"
#include "attention/dispatch.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

constexpr std::int64_t target_rows = 60;  // query rows that share one packed tile: whole blocks of five and of six
// Below this many multiplications waking another thread costs more than it gives.
constexpr std::int64_t serial_work = 128 * 1024;

std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

// A buffer that only grows: what is in it is not kept.
float* grown(std::vector<float>& buffer, std::int64_t count) {
  if (buffer.size() < size(count)) buffer.resize(size(count));
  return buffer.data();
}

// Buffers of one thread, kept between calls; they grow to the largest block seen.
struct Scratch {
  std::vector<float> q, tile, s, part, out;
  std::vector<SpanSum> spans, totals;
};

Scratch& scratch() {
  static thread_local Scratch buffers;
  return buffers;
}

// Some queries of one request and the query heads of one KV head.
struct Block {
  const float* q;  // first query, first head of the group; the next query is `q_stride` floats on
  float* out;
  std::int64_t q_stride, out_stride, queries, group, head_dim;
  std::int64_t first_limit;  // keys that the first query sees
  std::int64_t limit_step;   // how many more the next query sees: 1 if causal, else 0
  float scale;

  std::int64_t rows() const { return queries * group; }
  std::int64_t width() const { return round_up(head_dim, 16); }
  std::int64_t keys() const { return first_limit + (queries - 1) * limit_step; }
  std::int64_t spans() const { return (keys() + key_span - 1) / key_span; }
};

// Where some keys (or values) lie. One of these is filled for each tile.
struct TileRows {
  const void* rows[key_tile];
  float scales[key_tile];
  int count = 0;
};

// Asks for rows of so many bytes at once: kernels ask for the next tile's while they read one, and nobody for the first's.
void fetch(const TileRows& tile, std::int64_t bytes) {
  for (int j = 0; j < tile.count; ++j) {
    for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(tile.rows[j]) + at);
  }
}

const float* pack_queries(const Block& b, Scratch& buf) {
  const std::int64_t width = b.width();
  float* packed = grown(buf.q, b.rows() * width);
  for (std::int64_t row = 0; row < b.rows(); ++row) {
    const float* q = b.q + row / b.group * b.q_stride + row % b.group * b.head_dim;
    float* to = packed + row * width;
    std::memcpy(to, q, size(b.head_dim) * sizeof(float));
    std::fill(to + b.head_dim, to + width, 0.0F);
  }
  return packed;
}

// One span: part[row] and spans[row] of every row; a row that sees none of these keys gets a sum of 0.
template <class Source>
void attend_span(const Block& b, const AttentionKernels& kernels, const Source& source, const float* q,
                 std::int64_t span, float* part, SpanSum* sums, Scratch& buf) {
  const std::int64_t k0 = span * key_span;
  const int keys = static_cast<int>(std::min<std::int64_t>(key_span, b.keys() - k0));
  const int padded = static_cast<int>(round_up(keys, 16));
  const int rows = static_cast<int>(b.rows()), width = static_cast<int>(b.width());
  const int head_dim = static_cast<int>(b.head_dim);
  float* s = grown(buf.s, rows * key_span);
  float* tile = grown(buf.tile, key_tile * width);
  // Tiles in the order they are needed: the span's keys, then its values.
  TileRows buffers[2];
  const int tiles = (keys + key_tile - 1) / key_tile;
  const auto find = [&](int step) {
    TileRows& to = buffers[step % 2];
    const int t = step % tiles * key_tile;
    to.count = step < 2 * tiles ? std::min(key_tile, keys - t) : 0;
    if (step < tiles) source.keys(k0 + t, to);
    else if (step < 2 * tiles) source.values(k0 + t, to);
  };
  const auto rows_of = [&](int step) {
    find(step + 1);
    const TileRows &now = buffers[step % 2], &next = buffers[(step + 1) % 2];
    return KvRows{now.rows, now.scales, now.count, head_dim, width, source.format(), next.rows, next.count};
  };
  find(0);
  fetch(buffers[0], source.row_bytes(b.head_dim));
  for (int t = 0; t < tiles; ++t) {
    const KvRows from = rows_of(t);
    kernels.pack_keys(from, tile);
    kernels.scores(q, tile, s + t * key_tile, rows, static_cast<int>(round_up(from.count, 16)), width, b.scale);
  }
  for (int row = 0; row < rows; ++row) {
    const std::int64_t limit = b.first_limit + row / b.group * b.limit_step;
    const int valid = static_cast<int>(std::clamp<std::int64_t>(limit - k0, 0, keys));
    if (valid > 0) {
      sums[row] = kernels.softmax(s + row * key_span, valid, padded);
    } else {
      std::fill_n(s + row * key_span, padded, 0.0F);
      sums[row] = {-std::numeric_limits<float>::infinity(), 0.0F};
    }
  }
  std::fill_n(part, rows * width, 0.0F);
  const bool few = kernels.accumulate_few != nullptr && rows <= few_rows && width == head_dim;
  for (int t = 0; t < tiles; ++t) {
    const KvRows from = rows_of(tiles + t);
    if (few) {
      kernels.accumulate_few(s + t * key_tile, from, part, rows);
      continue;
    }
    kernels.pack_values(from, tile);
    kernels.accumulate(s + t * key_tile, tile, part, rows, from.count, width);
  }
}

// The running result of a block's rows, taken from one span after the other.
class Totals {
 public:
  // out: [rows][width]; totals: [rows].
  Totals(const Block& block, const AttentionKernels& kernels, float* out, SpanSum* totals)
      : b_(block), kernels_(kernels), out_(out), totals_(totals) {
    std::fill_n(out_, b_.rows() * b_.width(), 0.0F);
    std::fill_n(totals_, b_.rows(), SpanSum{-std::numeric_limits<float>::infinity(), 0.0F});
  }

  void add(std::int64_t span, const float* part, const SpanSum* sums) {
    for (std::int64_t row = 0; row < b_.rows(); ++row) {
      if (b_.first_limit + row / b_.group * b_.limit_step <= span * key_span) continue;
      kernels_.merge(part + row * b_.width(), sums[row], out_ + row * b_.width(), totals_ + row,
                     static_cast<int>(b_.width()));
    }
  }

  void write() const {
    for (std::int64_t row = 0; row < b_.rows(); ++row) {
      float* to = b_.out + row / b_.group * b_.out_stride + row % b_.group * b_.head_dim;
      const float* from = out_ + row * b_.width();
      for (std::int64_t h = 0; h < b_.head_dim; ++h) to[h] = from[h] / totals_[row].sum;
    }
  }

 private:
  Block b_;
  const AttentionKernels& kernels_;
  float* out_;
  SpanSum* totals_;
};

template <class Source>
void attend(const Block& b, const AttentionKernels& kernels, const Source& source) {
  Scratch& buf = scratch();
  const float* q = pack_queries(b, buf);
  float* part = grown(buf.part, b.rows() * b.width());
  buf.spans.resize(size(b.rows()));
  buf.totals.resize(size(b.rows()));
  Totals totals(b, kernels, grown(buf.out, b.rows() * b.width()), buf.totals.data());
  for (std::int64_t span = 0; span < b.spans(); ++span) {
    attend_span(b, kernels, source, q, span, part, buf.spans.data(), buf);
    totals.add(span, part, buf.spans.data());
  }
  totals.write();
}

// Blocks first .. first + count, of the same queries and all KV heads, span by span: the heads of a token lie side by
// side, and the processor fetches the others with the first.
template <class MakeBlock, class MakeSource>
void attend_together(std::int64_t first, std::int64_t count, const AttentionKernels& kernels,
                     const MakeBlock& make_block, const MakeSource& make_source) {
  Scratch& buf = scratch();
  const Block shape = make_block(first);
  const std::int64_t rows = shape.rows(), floats = rows * shape.width();
  float* part = grown(buf.part, floats);
  float* out = grown(buf.out, count * floats);
  buf.spans.resize(size(rows));
  buf.totals.resize(size(count * rows));
  std::vector<Totals> totals;
  totals.reserve(size(count));
  for (std::int64_t i = 0; i < count; ++i) {
    totals.emplace_back(make_block(first + i), kernels, out + i * floats, buf.totals.data() + i * rows);
  }
  for (std::int64_t span = 0; span < shape.spans(); ++span) {
    for (std::int64_t i = 0; i < count; ++i) {
      const Block b = make_block(first + i);
      attend_span(b, kernels, make_source(first + i), pack_queries(b, buf), span, part, buf.spans.data(), buf);
      totals[size(i)].add(span, part, buf.spans.data());
    }
  }
  for (const Totals& one : totals) one.write();
}

// Few queries and long contexts (one conversation that decodes): the spans of a block go to different threads, those of
// `together` neighbours (KV heads of the same queries) to one, and are merged in the same order as ever.
template <class MakeBlock, class MakeSource>
void attend_by_spans(std::int64_t blocks, std::int64_t together, const AttentionKernels& kernels,
                     const MakeBlock& make_block, const MakeSource& make_source) {
  std::int64_t spans = 0, floats = 0, rows = 0;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const Block b = make_block(i);
    spans = std::max(spans, b.spans());
    rows = std::max(rows, b.rows());
    floats = std::max(floats, b.rows() * b.width());
  }
  std::vector<float> parts(size(blocks * spans * floats));
  std::vector<SpanSum> sums(size(blocks * spans * rows));
  parallel_for(blocks / together * spans, [&](std::int64_t piece) {
    Scratch& buf = scratch();
    const std::int64_t span = piece % spans;
    for (std::int64_t i = piece / spans * together; i < (piece / spans + 1) * together; ++i) {
      const Block b = make_block(i);
      if (span >= b.spans()) return;
      const std::int64_t item = i * spans + span;
      attend_span(b, kernels, make_source(i), pack_queries(b, buf), span, parts.data() + item * floats,
                  sums.data() + item * rows, buf);
    }
  });
  parallel_for(blocks, [&](std::int64_t i) {
    const Block b = make_block(i);
    Scratch& buf = scratch();
    buf.totals.resize(size(b.rows()));
    Totals totals(b, kernels, grown(buf.out, b.rows() * b.width()), buf.totals.data());
    for (std::int64_t span = 0; span < b.spans(); ++span) {
      const std::int64_t item = i * spans + span;
      totals.add(span, parts.data() + item * floats, sums.data() + item * rows);
    }
    totals.write();
  });
}

struct Work {
  std::int64_t owner;       // request or segment
  std::int64_t begin, end;  // its queries, as rows of q
};

std::vector<Work> split_queries(const std::int32_t* bounds, std::int64_t owners, std::int64_t block) {
  std::vector<Work> work;
  for (std::int64_t i = 0; i < owners; ++i) {
    for (std::int64_t t = bounds[i]; t < bounds[i + 1]; t += block) {
      work.push_back({i, t, std::min<std::int64_t>(t + block, bounds[i + 1])});
    }
  }
  // A prompt's last queries see the most keys: begun first, they do not keep one thread busy after the others.
  std::reverse(work.begin(), work.end());
  return work;
}

// Keys and values of one KV head of one request.
class PagedSource {
 public:
  PagedSource(const PagedAttentionArgs& a, std::int64_t request, std::int64_t kv_head)
      : a_(a), table_(a.block_table + request * a.blocks_per_request), kv_head_(kv_head) {
    const std::int64_t item = a.cache.format == KvFormat::f32 ? 4 : a.cache.format == KvFormat::bf16 ? 2 : 1;
    row_bytes_ = a.head_dim * item;
  }

  KvFormat format() const { return a_.cache.format; }
  std::int64_t row_bytes(std::int64_t) const { return row_bytes_; }

  // to.count of them, from a position on.
  void keys(std::int64_t position, TileRows& to) const { find(position, a_.cache.keys, a_.cache.key_scales, to); }
  void values(std::int64_t position, TileRows& to) const { find(position, a_.cache.values, a_.cache.value_scales, to); }

 private:
  void find(std::int64_t position, const void* cache, const float* scales, TileRows& to) const {
    std::int64_t column = position / a_.block_size, offset = position % a_.block_size;
    for (int j = 0; j < to.count; ++j) {
      const std::int64_t at = (table_[column] * a_.block_size + offset) * a_.kv_heads + kv_head_;
      to.rows[j] = static_cast<const char*>(cache) + at * row_bytes_;
      if (scales != nullptr) to.scales[j] = scales[at];
      if (++offset == a_.block_size) {
        offset = 0;
        ++column;
      }
    }
  }

  const PagedAttentionArgs& a_;
  const std::int32_t* table_;
  std::int64_t kv_head_, row_bytes_;
};

// Keys and values of one head of one segment.
struct SegmentSource {
  const float* k;
  const float* v;
  std::int64_t stride;

  static KvFormat format() { return KvFormat::f32; }
  static std::int64_t row_bytes(std::int64_t head_dim) { return head_dim * 4; }
  void keys(std::int64_t position, TileRows& to) const { find(k, position, to); }
  void values(std::int64_t position, TileRows& to) const { find(v, position, to); }
  void find(const float* from, std::int64_t position, TileRows& to) const {
    for (int j = 0; j < to.count; ++j) to.rows[j] = from + (position + j) * stride;
  }
};

}  // namespace

const AttentionKernels& select_attention_kernels(Isa isa) noexcept {
#if defined(TUSI_X86)
  if (isa == Isa::avx512) return avx512::attention_kernels;
  if (isa == Isa::avx2) return avx2::attention_kernels;
#endif
  (void)isa;
  return generic::attention_kernels;
}

void paged_attention(const PagedAttentionArgs& a, const AttentionKernels& kernels) {
  const std::int64_t group = a.heads / a.kv_heads;
  const std::vector<Work> work =
      split_queries(a.query_start_loc, a.requests, std::max<std::int64_t>(1, target_rows / group));
  const std::int64_t blocks = static_cast<std::int64_t>(work.size()) * a.kv_heads;
  const auto make_block = [&](std::int64_t item) {
    const Work& w = work[size(item / a.kv_heads)];
    const std::int64_t head = item % a.kv_heads * group;
    // The request's queries are the last of its tokens, so the first one's position follows from the counts.
    const std::int64_t first_limit = a.seq_lens[w.owner] - (a.query_start_loc[w.owner + 1] - w.begin) + 1;
    return Block{a.q + w.begin * a.q_stride + head * a.head_dim,
                 a.out + (w.begin * a.heads + head) * a.head_dim,
                 a.q_stride,
                 a.heads * a.head_dim,
                 w.end - w.begin,
                 group,
                 a.head_dim,
                 first_limit,
                 1,
                 a.scale};
  };
  const auto make_source = [&](std::int64_t item) {
    return PagedSource(a, work[size(item / a.kv_heads)].owner, item % a.kv_heads);
  };
  std::int64_t products = 0, longest = 0;
  for (const Work& w : work) {
    products += (w.end - w.begin) * a.seq_lens[w.owner] * a.heads * a.head_dim * 2;
    longest = std::max<std::int64_t>(longest, a.seq_lens[w.owner]);
  }
  if (products > serial_work && static_cast<std::int64_t>(work.size()) < num_threads() && longest > key_span) {
    // The heads of a token lie side by side and come faster together, if that leaves enough pieces to share.
    const bool many = longest >= 2 * num_threads() * key_span;
    return attend_by_spans(blocks, many ? a.kv_heads : 1, kernels, make_block, make_source);
  }
  if (static_cast<std::int64_t>(work.size()) >= num_threads()) {
    return parallel_if(products > serial_work, static_cast<std::int64_t>(work.size()), [&](std::int64_t item) {
      attend_together(item * a.kv_heads, a.kv_heads, kernels, make_block, make_source);
    });
  }
  parallel_if(products > serial_work, blocks,
              [&](std::int64_t item) { attend(make_block(item), kernels, make_source(item)); });
}

void varlen_attention(const VarlenAttentionArgs& a, const AttentionKernels& kernels) {
  const std::vector<Work> work = split_queries(a.cu_seqlens, a.segments, target_rows);
  parallel_for(static_cast<std::int64_t>(work.size()) * a.heads, [&](std::int64_t item) {
    // Head by head, so that the keys and values of one head stay in the cache while all its queries pass.
    const Work& w = work[size(item % static_cast<std::int64_t>(work.size()))];
    const std::int64_t head = item / static_cast<std::int64_t>(work.size()) * a.head_dim;
    const std::int64_t begin = a.cu_seqlens[w.owner], end = a.cu_seqlens[w.owner + 1];
    const Block block{a.q + w.begin * a.stride + head,
                      a.out + w.begin * a.heads * a.head_dim + head,
                      a.stride,
                      a.heads * a.head_dim,
                      w.end - w.begin,
                      1,
                      a.head_dim,
                      end - begin,
                      0,
                      a.scale};
    const std::int64_t at = begin * a.stride + head;
    attend(block, kernels, SegmentSource{a.k + at, a.v + at, a.stride});
  });
}

}  // namespace tusi
