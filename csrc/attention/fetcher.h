// Asks for what a kernel is told will be wanted next, some lines at each of its steps. For ISA files; in an unnamed
// namespace, so that no other file ends up with their code.
#pragma once

#include "attention/attention.h"

namespace tusi {
namespace {

class Fetcher {
 public:
  // Everything is asked for within so many steps.
  Fetcher(const Ahead& next, int steps)
      : base_(next.bases),
        end_(next.bases + next.count),
        lines_(next.lines),
        step_(next.step),
        each_((next.count * next.lines + steps - 1) / steps) {
    if (base_ != end_) at_ = static_cast<const char*>(*base_);
  }

  // Inlined by force: GCC takes a function that does nothing else for one without effects, and leaves its calls out.
  [[gnu::always_inline]] void operator()() {
    for (int i = 0; i < each_ && base_ != end_; ++i) {
      __builtin_prefetch(at_);
      at_ += step_;
      if (++line_ < lines_) continue;
      line_ = 0;
      if (++base_ != end_) at_ = static_cast<const char*>(*base_);
    }
  }

 private:
  const void* const* base_;
  const void* const* end_;
  const char* at_ = nullptr;
  int lines_, step_, each_, line_ = 0;
};

}  // namespace
}  // namespace tusi
