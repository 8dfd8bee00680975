// Splits attention into (request, KV head, block of queries), gathers tiles and runs an ISA's kernels over them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "attention/attention.h"
#include "attention/dispatch.h"
#include "attention/source.h"
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
  Ahead next{};                 // what the present tile asks for
  const void* asked = nullptr;  // where the tile begins that was asked for last
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

// The first tile of what a thread does next is asked for meanwhile; if it was not, all of it is asked for at once.
template <class Source>
void ask_first(const Source& source, std::int64_t position, std::int64_t keys, Ahead& to) {
  source.ask_keys(position, static_cast<int>(std::min<std::int64_t>(key_tile, keys - position)), to);
}

template <class Source>
void fetch_first(const Source& source, std::int64_t position, std::int64_t keys, Scratch& buf) {
  Ahead& first = buf.next;
  ask_first(source, position, keys, first);
  if (first.bases[0] == buf.asked) return;
  for (int i = 0; i < first.count; ++i) {
    const char* base = static_cast<const char*>(first.bases[i]);
    for (int line = 0; line < first.lines; ++line) __builtin_prefetch(base + std::int64_t{line} * first.step);
  }
}

// One span: part[row] and spans[row] of every row; a row that sees none of these keys gets a sum of 0. ask(to) says what
// comes after it.
template <class Source, class AskNext>
void attend_span(const Block& b, const AttentionKernels& kernels, const Source& source, std::int64_t span,
                 const AskNext& ask, float* part, SpanSum* sums, Scratch& buf) {
  const std::int64_t k0 = span * key_span;
  fetch_first(source, k0, b.keys(), buf);
  const float* q = pack_queries(b, buf);
  const int keys = static_cast<int>(std::min<std::int64_t>(key_span, b.keys() - k0));
  const int rows = static_cast<int>(b.rows()), width = static_cast<int>(b.width());
  const int head_dim = static_cast<int>(b.head_dim);
  float* s = grown(buf.s, rows * key_span);
  float* tile = grown(buf.tile, key_tile * width);
  const auto count_at = [&](int t) { return std::min(key_tile, keys - t); };
  Ahead& next = buf.next;
  float scales[key_span];
  for (int t = 0; t < keys; t += key_tile) {
    const KeyTile from = source.keys(kernels, k0 + t, count_at(t), tile, scales);
    if (t + key_tile < keys) source.ask_keys(k0 + t + key_tile, count_at(t + key_tile), next);
    else source.ask_values(k0, count_at(0), next);
    kernels.scores(q, from, next, s + t, rows, width, b.scale);
  }
  const int padded = static_cast<int>(round_up(keys, key_group));
  const float* value_scales = source.value_scales(k0, keys, scales);
  for (int row = 0; row < rows; ++row) {
    const std::int64_t limit = b.first_limit + row / b.group * b.limit_step;
    const int valid = static_cast<int>(std::clamp<std::int64_t>(limit - k0, 0, keys));
    if (valid > 0) {
      sums[row] = kernels.softmax(s + row * key_span, value_scales, valid, padded);
    } else {
      std::fill_n(s + row * key_span, padded, 0.0F);
      sums[row] = {-std::numeric_limits<float>::infinity(), 0.0F};
    }
  }
  std::fill_n(part, rows * width, 0.0F);
  const bool few = kernels.accumulate_few != nullptr && rows <= few_rows && width == head_dim;
  ValueTile from{{}, 0, head_dim, width, source.format()};
  for (int t = 0; t < keys; t += key_tile) {
    from.count = count_at(t);
    source.values(k0 + t, from);
    if (t + key_tile < keys) {
      source.ask_values(k0 + t + key_tile, count_at(t + key_tile), next);
    } else {
      next.count = 0;
      ask(next);
      buf.asked = next.count > 0 ? next.bases[0] : nullptr;
    }
    if (few) {
      kernels.accumulate_few(s + t, from, next, part, rows);
      continue;
    }
    kernels.pack_values(from, next, tile);
    kernels.accumulate(s + t, tile, part, rows, from.count, width);
  }
}

// The running result of a block's rows, taken from one span after the other.
class Totals {
 public:
  // out: [rows][width]; totals: [rows].
  Totals(const Block& block, const AttentionKernels& kernels, float* out, SpanSum* totals)
      : b_(block), kernels_(kernels), out_(out), totals_(totals) {}

  void clear() const {
    std::fill_n(out_, b_.rows() * b_.width(), 0.0F);
    std::fill_n(totals_, b_.rows(), SpanSum{-std::numeric_limits<float>::infinity(), 0.0F});
  }

  void add(std::int64_t span, const float* part, const SpanSum* sums) const {
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

// Groups of `together` blocks (KV heads of the same queries), each on one thread and span by span: the heads of a block of
// the cache lie one behind the other, and what the processor fetches beyond one is the next.
template <class MakeBlock, class MakeSource>
void attend_groups(std::int64_t groups, std::int64_t together, bool serial, const AttentionKernels& kernels,
                   const MakeBlock& make_block, const MakeSource& make_source) {
  const auto attend = [&](std::int64_t group) {
    const std::int64_t first = group * together;
    const Block shape = make_block(first);
    const std::int64_t rows = shape.rows(), floats = rows * shape.width();
    Scratch& buf = scratch();
    float* part = grown(buf.part, floats);
    float* out = grown(buf.out, together * floats);
    buf.spans.resize(size(rows));
    buf.totals.resize(size(together * rows));
    const auto totals = [&](std::int64_t i) {
      return Totals(make_block(first + i), kernels, out + i * floats, buf.totals.data() + i * rows);
    };
    for (std::int64_t i = 0; i < together; ++i) totals(i).clear();
    for (std::int64_t step = 0; step < shape.spans() * together; ++step) {
      const std::int64_t span = step / together, i = step % together, next = step + 1;
      const auto ask = [&](Ahead& to) {
        if (next < shape.spans() * together) {
          ask_first(make_source(first + next % together), next / together * key_span, shape.keys(), to);
        } else if (group + 1 < groups) {
          ask_first(make_source(first + together), 0, make_block(first + together).keys(), to);
        }
      };
      attend_span(make_block(first + i), kernels, make_source(first + i), span, ask, part, buf.spans.data(), buf);
      totals(i).add(span, part, buf.spans.data());
    }
    for (std::int64_t i = 0; i < together; ++i) totals(i).write();
  };
  const auto attend_all = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) attend(group);
  };
  if (serial) return attend_all(0, groups);
  parallel_walk(groups, 1, attend_all);
}

// Few queries and long contexts (one conversation that decodes): the spans of a block go to different threads and are
// merged in the same order as ever.
template <class MakeBlock, class MakeSource>
void attend_by_spans(std::int64_t blocks, const AttentionKernels& kernels, const MakeBlock& make_block,
                     const MakeSource& make_source) {
  std::int64_t spans = 0, floats = 0, rows = 0;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const Block b = make_block(i);
    spans = std::max(spans, b.spans());
    rows = std::max(rows, b.rows());
    floats = std::max(floats, b.rows() * b.width());
  }
  static thread_local std::vector<float> kept_parts;
  static thread_local std::vector<SpanSum> kept_sums;
  float* const parts = grown(kept_parts, blocks * spans * floats);
  if (kept_sums.size() < size(blocks * spans * rows)) kept_sums.resize(size(blocks * spans * rows));
  SpanSum* const sums = kept_sums.data();
  const auto attend = [&](std::int64_t item) {
    const std::int64_t span = item / blocks;
    const Block b = make_block(item % blocks);
    if (span >= b.spans()) return;
    const auto ask = [&](Ahead& to) {
      const std::int64_t next = (item + 1) / blocks * key_span, keys = make_block((item + 1) % blocks).keys();
      if (next < keys) ask_first(make_source((item + 1) % blocks), next, keys, to);
    };
    attend_span(b, kernels, make_source(item % blocks), span, ask, parts + item * floats, sums + item * rows, scratch());
  };
  parallel_walk(spans * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) attend(item);
  });
  parallel_for(blocks, [&](std::int64_t i) {
    const Block b = make_block(i);
    Scratch& buf = scratch();
    buf.totals.resize(size(b.rows()));
    const Totals totals(b, kernels, grown(buf.out, b.rows() * b.width()), buf.totals.data());
    totals.clear();
    for (std::int64_t span = 0; span < b.spans(); ++span) {
      const std::int64_t item = span * blocks + i;
      totals.add(span, parts + item * floats, sums + item * rows);
    }
    totals.write();
  });
}

struct Work {
  std::int64_t owner;       // request or segment
  std::int64_t begin, end;  // its queries, as rows of q
};

// Kept between calls of a thread, and read by those that help it.
const std::vector<Work>& split_queries(const std::int32_t* bounds, std::int64_t owners, std::int64_t block) {
  static thread_local std::vector<Work> work;
  work.clear();
  for (std::int64_t i = 0; i < owners; ++i) {
    for (std::int64_t t = bounds[i]; t < bounds[i + 1]; t += block) {
      work.push_back({i, t, std::min<std::int64_t>(t + block, bounds[i + 1])});
    }
  }
  // A prompt's last queries see the most keys: begun first, they do not keep one thread busy after the others.
  std::reverse(work.begin(), work.end());
  return work;
}

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
  const std::vector<Work>& work =
      split_queries(a.query_start_loc, a.requests, std::max<std::int64_t>(1, target_rows / group));
  const std::int64_t pieces = static_cast<std::int64_t>(work.size());
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
  const bool serial = products <= serial_work;
  if (!serial && pieces < num_threads() && longest > key_span) {
    return attend_by_spans(pieces * a.kv_heads, kernels, make_block, make_source);
  }
  const std::int64_t together = pieces < num_threads() ? 1 : a.kv_heads;
  attend_groups(pieces * a.kv_heads / together, together, serial, kernels, make_block, make_source);
}

void varlen_attention(const VarlenAttentionArgs& a, const AttentionKernels& kernels) {
  const std::vector<Work>& work = split_queries(a.cu_seqlens, a.segments, target_rows);
  const std::int64_t pieces = static_cast<std::int64_t>(work.size());
  // Head by head, so that the keys and values of one head stay in the cache while all its queries pass.
  const auto make_block = [&](std::int64_t item) {
    const Work& w = work[size(item % pieces)];
    const std::int64_t head = item / pieces * a.head_dim;
    return Block{a.q + w.begin * a.stride + head,
                 a.out + w.begin * a.heads * a.head_dim + head,
                 a.stride,
                 a.heads * a.head_dim,
                 w.end - w.begin,
                 1,
                 a.head_dim,
                 a.cu_seqlens[w.owner + 1] - a.cu_seqlens[w.owner],
                 0,
                 a.scale};
  };
  const auto make_source = [&](std::int64_t item) {
    const std::int64_t at = a.cu_seqlens[work[size(item % pieces)].owner] * a.stride + item / pieces * a.head_dim;
    return SegmentSource(a.k + at, a.v + at, a.stride, a.head_dim);
  };
  attend_groups(pieces * a.heads, 1, false, kernels, make_block, make_source);
}

}  // namespace tusi
