// Memory that grows and stays, one piece a caller's thread: what a layer needs between its steps.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tusi {

class Scratch {
 public:
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(reserve(static_cast<std::size_t>(count) * sizeof(T)));
  }
  ~Scratch();
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

 private:
  void* reserve(std::size_t bytes);
  void* memory_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace tusi
