// One pool of threads for all kernels.
//
// parallel_for(items, body) calls body(i) for i in 0..items, in any order, on the pool's threads and the caller's, and
// returns when all are done. Bodies must not throw (running out of memory in one ends the process). Callers on several
// threads take turns; a body that calls parallel_for again runs it alone, in order. Threads start at first use, never
// end, and are started anew in a forked child (where the parent's threads do not exist).
//
// For portable files only: ISA files must not include this (a template here could be compiled with their flags).
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace tusi {

int num_threads() noexcept;

// Total threads a kernel runs on, the caller's included; at least 1. Waits for a running kernel to end.
void set_num_threads(int count);

namespace detail {
using Body = void (*)(const void* context, std::int64_t item);
void run_on_pool(std::int64_t items, Body body, const void* context);
}  // namespace detail

template <class F>
void parallel_for(std::int64_t items, const F& body) {
  detail::run_on_pool(
      items, [](const void* context, std::int64_t item) { (*static_cast<const F*>(context))(item); }, &body);
}

// The same, but alone and in order if not `worth_it`: waking a thread costs about as much as 100,000 multiplications.
template <class F>
void parallel_if(bool worth_it, std::int64_t items, const F& body) {
  if (worth_it) return parallel_for(items, body);
  for (std::int64_t i = 0; i < items; ++i) body(i);
}

// Splits 0..count into ranges of `grain` (the last may be short) and calls body(begin, end) for each.
template <class F>
void parallel_ranges(std::int64_t count, std::int64_t grain, const F& body) {
  const std::int64_t items = (count + grain - 1) / grain;
  parallel_for(items, [&](std::int64_t item) {
    const std::int64_t begin = item * grain;
    const std::int64_t end = begin + grain < count ? begin + grain : count;
    body(begin, end);
  });
}

namespace detail {

// What one thread has yet to do: units begin..end in one word. The owner takes from the front, others from the back.
class Span {
 public:
  void set(std::uint32_t begin, std::uint32_t end) { word_.store(pack(begin, end)); }
  // A third of what is left, at least one unit and at most `most`, or nothing: false.
  bool take(bool front, std::int64_t most, std::int64_t* first, std::int64_t* last) {
    std::uint64_t word = word_.load();
    for (;;) {
      const auto begin = static_cast<std::uint32_t>(word >> 32), end = static_cast<std::uint32_t>(word);
      if (begin >= end) return false;
      const std::uint32_t third = (end - begin) / 3, limit = static_cast<std::uint32_t>(most);
      const std::uint32_t count = third < 1 ? 1 : third < limit ? third : limit;
      *first = front ? begin : end - count;
      *last = *first + count;
      if (word_.compare_exchange_weak(word, front ? pack(begin + count, end) : pack(begin, end - count))) return true;
    }
  }

 private:
  static std::uint64_t pack(std::uint32_t begin, std::uint32_t end) { return std::uint64_t{begin} << 32 | end; }
  alignas(64) std::atomic<std::uint64_t> word_{0};
};

}  // namespace detail

// Calls body(begin, end) for pieces of 0..units, each unit once. A thread walks over its stretch from the front, so that
// what lies behind a piece in memory can be fetched while the piece is worked on; when it is done it helps another from
// the end of that one's. Pieces have at most `most` units, as long ones are read fastest, and become shorter towards the
// end of a stretch, so that all threads end together.
template <class F>
void parallel_walk(std::int64_t units, std::int64_t most, const F& body) {
  const std::int64_t threads = num_threads();
  std::vector<detail::Span> spans(static_cast<std::size_t>(threads));
  for (std::int64_t i = 0; i < threads; ++i) {
    spans[static_cast<std::size_t>(i)].set(static_cast<std::uint32_t>(units * i / threads),
                                           static_cast<std::uint32_t>(units * (i + 1) / threads));
  }
  parallel_for(threads, [&](std::int64_t self) {
    for (std::int64_t other = 0; other < threads; ++other) {
      detail::Span& span = spans[static_cast<std::size_t>((self + other) % threads)];
      for (std::int64_t begin = 0, end = 0; span.take(other == 0, most, &begin, &end);) body(begin, end);
    }
  });
}

}  // namespace tusi
