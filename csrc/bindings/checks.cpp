#include "bindings/checks.h"

#include <algorithm>

namespace tusi::bindings {
namespace {

constexpr const char* dtype_names[] = {"float32", "uint16", "int8", "uint8", "int32", "int64", "float64"};

nb::dlpack::dtype dlpack_dtype(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return nb::dtype<float>();
    case Dtype::u16: return nb::dtype<std::uint16_t>();
    case Dtype::i8: return nb::dtype<std::int8_t>();
    case Dtype::u8: return nb::dtype<std::uint8_t>();
    case Dtype::i32: return nb::dtype<std::int32_t>();
    case Dtype::i64: return nb::dtype<std::int64_t>();
    case Dtype::f64: return nb::dtype<double>();
  }
  return {};
}

std::string describe(nb::dlpack::dtype dtype) {
  const char* kind = "type";
  switch (static_cast<nb::dlpack::dtype_code>(dtype.code)) {
    case nb::dlpack::dtype_code::Int: kind = "int"; break;
    case nb::dlpack::dtype_code::UInt: kind = "uint"; break;
    case nb::dlpack::dtype_code::Float: kind = "float"; break;
    case nb::dlpack::dtype_code::Bfloat: kind = "bfloat"; break;
    case nb::dlpack::dtype_code::Complex: kind = "complex"; break;
    case nb::dlpack::dtype_code::Bool: kind = "bool"; break;
    default: break;
  }
  return kind + std::to_string(dtype.bits);
}

std::string describe(const Shape& shape) {
  std::string text = "(";
  for (const std::int64_t size : shape)
    text += (text.size() > 1 ? ", " : "") + (size == any ? "*" : std::to_string(size));
  return text + ")";
}

template <class Array>
bool is_c_contiguous(const Array& array) {
  if (array.size() == 0) return true;
  std::int64_t expected = 1;
  for (std::size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) != 1 && array.stride(i) != expected) return false;
    expected *= static_cast<std::int64_t>(array.shape(i));
  }
  return true;
}

template <class Array>
View check_array(const char* name, const Array& array, std::initializer_list<Dtype> allowed,
                 const Shape& expected) {
  if (array.ndim() > Shape::max_axes) {
    refuse_value(std::string(name) + " has " + std::to_string(array.ndim()) + " axes; expected at most " +
                 std::to_string(Shape::max_axes) + ". Reshape it.");
  }
  View view{name, array.data(), static_cast<std::int64_t>(array.nbytes()), {}, Dtype::f32};
  for (std::size_t i = 0; i < array.ndim(); ++i) view.shape.push_back(static_cast<std::int64_t>(array.shape(i)));
  const auto* found =
      std::find_if(allowed.begin(), allowed.end(), [&](Dtype dtype) { return dlpack_dtype(dtype) == array.dtype(); });
  if (found == allowed.end()) {
    std::string wanted;
    for (const Dtype dtype : allowed)
      wanted += (wanted.empty() ? "" : " or ") + std::string(dtype_names[static_cast<int>(dtype)]);
    throw nb::type_error((std::string(name) + " is " + describe(array.dtype()) + " of shape " + describe(view.shape) +
                          "; expected " + wanted + ". Convert it once, before the call, with .astype().")
                             .c_str());
  }
  view.dtype = *found;
  if (!is_c_contiguous(array)) {
    throw nb::type_error((std::string(name) + " of shape " + describe(view.shape) +
                          " is not contiguous; expected C order without gaps. Kernels never copy: pass "
                          "numpy.ascontiguousarray() of it.")
                             .c_str());
  }
  const std::size_t item = array.itemsize();
  if (reinterpret_cast<std::uintptr_t>(view.data) % item != 0) {
    throw nb::type_error((std::string(name) + " starts at an address that is not a multiple of its item size (" +
                          std::to_string(item) + " bytes); expected aligned memory. Pass a copy of it.")
                             .c_str());
  }
  bool fits = expected.empty() || expected.size() == view.shape.size();
  for (std::size_t i = 0; fits && i < expected.size(); ++i) fits = expected[i] == any || expected[i] == view.shape[i];
  if (!fits) {
    refuse_value(std::string(name) + " has shape " + describe(view.shape) + "; expected " + describe(expected) +
                 " (* is free, the other sizes follow from the other arguments). Check which argument was meant.");
  }
  return view;
}

}  // namespace

void refuse_value(const std::string& message) { throw nb::value_error(message.c_str()); }

View check(const char* name, const In& array, std::initializer_list<Dtype> allowed,
           std::initializer_list<std::int64_t> shape) {
  return check_array(name, array, allowed, Shape(shape));
}

View check(const char* name, const Out& array, std::initializer_list<Dtype> allowed,
           std::initializer_list<std::int64_t> shape) {
  return check_array(name, array, allowed, Shape(shape));
}

void same_shape(const View& a, const View& b) {
  if (a.shape == b.shape) return;
  refuse_value(std::string(a.name) + " has shape " + describe(a.shape) + "; expected " + describe(b.shape) +
               ", that of " + b.name + ".");
}

void no_overlap(const View& out, const View& in, bool in_place) {
  if (out.bytes == 0 || in.bytes == 0) return;
  if (in_place && out.data == in.data && out.bytes == in.bytes) return;
  const auto* out_begin = static_cast<const char*>(out.data);
  const auto* in_begin = static_cast<const char*>(in.data);
  if (out_begin < in_begin + in.bytes && in_begin < out_begin + out.bytes) {
    refuse_value(
        std::string(out.name) + " shares memory with " + in.name +
        "; expected an array of its own, for the input is read while the output is written. Pass another one.");
  }
}

Isa choose_isa(const std::optional<std::string>& name) {
  if (!name) return active_isa();
  Isa isa = Isa::generic;
  if (!parse_isa(name->c_str(), &isa)) {
    refuse_value("isa is '" + *name + "'; expected generic, avx2, avx512 or None.");
  }
  if (!isa_is_supported(isa)) {
    refuse_value("isa is '" + *name +
                 "', which this processor, operating system or build does not have; the best here is " +
                 isa_name(best_isa()) + ". Pass None to use it.");
  }
  return isa;
}

}  // namespace tusi::bindings
