// What every binding says about its arrays before a kernel sees a pointer: dtype, C order, shape, alignment, overlap.
//
// Arrays are taken as any ndarray and checked here, not by nanobind's own overload rules, so that an error names the
// argument, what it was, what it should have been and what to do. Wrong dtype or layout: TypeError. Wrong shape or
// values: ValueError. Nothing is ever converted or copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "core/cpu.h"

namespace tusi::bindings {

namespace nb = nanobind;

using In = nb::ndarray<nb::ro, nb::device::cpu>;
using Out = nb::ndarray<nb::device::cpu>;

enum class Dtype { f32, u16, i8, u8, i32, i64, f64 };

constexpr std::int64_t any = -1;  // in an expected shape: whatever is there

[[noreturn]] void refuse_value(const std::string& message);

// The sizes of an array's axes, without memory of its own: these are made for every argument of every call.
class Shape {
 public:
  static constexpr std::size_t max_axes = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) {
    for (const std::int64_t size : sizes) push_back(size);
  }

  // At most max_axes of them.
  void push_back(std::int64_t size) { sizes_[count_++] = size; }
  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  const std::int64_t* begin() const { return sizes_; }
  const std::int64_t* end() const { return sizes_ + count_; }
  std::int64_t operator[](std::size_t axis) const { return sizes_[axis]; }
  std::int64_t back() const { return sizes_[count_ - 1]; }
  std::int64_t& back() { return sizes_[count_ - 1]; }
  bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

 private:
  std::int64_t sizes_[max_axes] = {};
  std::size_t count_ = 0;
};

struct View {
  const char* name;
  const void* data;
  std::int64_t bytes;
  Shape shape;
  Dtype dtype;
};

// Checks dtype (one of `allowed`), C order, alignment and shape (`any` where free; nothing checked if empty).
View check(const char* name, const In& array, std::initializer_list<Dtype> allowed,
           std::initializer_list<std::int64_t> shape);
View check(const char* name, const Out& array, std::initializer_list<Dtype> allowed,
           std::initializer_list<std::int64_t> shape);

// ValueError unless the shapes are equal.
void same_shape(const View& a, const View& b);

// ValueError if the two share memory; `in_place` allows that they are the very same array.
void no_overlap(const View& out, const View& in, bool in_place);

template <class T>
const T* in(const View& view) {
  return static_cast<const T*>(view.data);
}
// Only for views of an Out.
template <class T>
T* out(const View& view) {
  return const_cast<T*>(static_cast<const T*>(view.data));
}

// The named instruction set, or the active one. ValueError if unknown or not supported here.
Isa choose_isa(const std::optional<std::string>& name);

void bind_attention(nb::module_& m);
void bind_decoder(nb::module_& m);
void bind_elementwise(nb::module_& m);
void bind_gemm(nb::module_& m);
void bind_moe(nb::module_& m);
void bind_qgemm(nb::module_& m);
void bind_runtime(nb::module_& m);
void bind_sampling(nb::module_& m);

}  // namespace tusi::bindings
