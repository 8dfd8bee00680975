#include "core/scratch.h"

#include <cstdlib>
#include <new>

namespace tusi {

Scratch::~Scratch() { std::free(memory_); }

void* Scratch::reserve(std::size_t bytes) {
  if (bytes > capacity_) {
    std::free(memory_);
    const std::size_t rounded = (bytes + bytes / 8 + 63) / 64 * 64;
    memory_ = std::aligned_alloc(64, rounded);
    capacity_ = memory_ == nullptr ? 0 : rounded;
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  return memory_;
}

}  // namespace tusi
