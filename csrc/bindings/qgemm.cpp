#include "qgemm/qgemm.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings/gil.h"
#include "bindings/packed.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;
using Maybe = std::optional<In>;

// Beyond it the sum of a group could leave 32 bits: 255 * 127 * 65536 < 2^31.
constexpr std::int64_t max_group_size = 65536;

PackedMatrix describe(std::int64_t rows, std::int64_t inner, std::int64_t group_size, bool four_bits) {
  if (group_size < 1 || group_size > max_group_size) {
    refuse_value("group_size is " + std::to_string(group_size) + "; expected 1 to " + std::to_string(max_group_size) +
                 " columns that share a scale.");
  }
  if (rows < 0 || inner < 0) {
    refuse_value("the matrix is said to be " + std::to_string(rows) + " x " + std::to_string(inner) +
                 "; expected sizes of 0 or more.");
  }
  return packed_matrix(rows, inner, group_size, four_bits);
}

void qgemm_op(const In& x_TK, const In& codes, const In& scales, std::int64_t rows, std::int64_t group_size,
              const std::string& activations, const Out& out_TN, const Maybe& bias_N, const Maybe& norm_K, double eps,
              bool add, const IsaName& isa) {
  const View x = check("x_TK", x_TK, {Dtype::f32}, {any, any});
  QgemmArgs args{};
  args.weight = check_packed("codes", codes, "scales", scales, rows, x.shape[1], group_size);
  const View result = check("out", out_TN, {Dtype::f32}, {x.shape[0], rows});
  no_overlap(result, x, false);
  args.x = in<float>(x);
  args.out = out<float>(result);
  args.tokens = x.shape[0];
  args.eps = static_cast<float>(eps);
  args.add = add;
  args.activations = parse_activations(activations);
  if (bias_N) args.bias = in<float>(check("bias_N", *bias_N, {Dtype::f32}, {rows}));
  if (norm_K) args.norm_weight = in<float>(check("norm_K", *norm_K, {Dtype::f32}, {x.shape[1]}));
  const QgemmKernels& kernels = select_qgemm_kernels(choose_isa(isa));
  const ReleasedGil release;
  qgemm(args, kernels);
}

void round_activations_op(const In& x_TK, std::int64_t group_size, bool four_bits, const Out& codes_TK,
                          const Out& scales_TG, const Out& offsets_TG, const IsaName& isa) {
  const View x = check("x_TK", x_TK, {Dtype::f32}, {any, any});
  const PackedMatrix w = describe(0, x.shape[1], group_size, four_bits);
  const View codes = check("codes_TK", codes_TK, {Dtype::i8}, {x.shape[0], w.chunks * chunk_columns});
  const View scales = check("scales_TG", scales_TG, {Dtype::f32}, {x.shape[0], w.groups});
  const View offsets = check("offsets_TG", offsets_TG, {Dtype::i32}, {x.shape[0], w.groups});
  const QgemmKernels& kernels = select_qgemm_kernels(choose_isa(isa));
  const ReleasedGil release;
  for (std::int64_t t = 0; t < x.shape[0]; ++t) {
    kernels.round_groups(w, 0, w.groups, in<float>(x) + t * w.inner,
                         out<std::int8_t>(codes) + t * w.chunks * chunk_columns, out<float>(scales) + t * w.groups,
                         out<std::int32_t>(offsets) + t * w.groups);
  }
}

void pack_op(const In& codes_NK, const In& scales_NG, std::int64_t group_size, const Out& packed_codes,
             const Out& packed_scales) {
  const View codes = check("codes_NK", codes_NK, {Dtype::i8}, {any, any});
  const std::int64_t rows = codes.shape[0], inner = codes.shape[1];
  const PackedMatrix w = check_packed("packed_codes", In(packed_codes), "packed_scales", In(packed_scales), rows,
                                      inner, group_size);
  const View scales =
      check("scales_NG", scales_NG, {w.float_scales ? Dtype::f32 : Dtype::u16}, {rows, w.groups});
  const int low = -w.zero, high = w.zero - 1;
  const std::int8_t* values = in<std::int8_t>(codes);
  if (w.four_bits) {
    for (std::int64_t i = 0; i < rows * inner; ++i) {
      if (values[i] < low || values[i] > high) {
        refuse_value("codes_NK holds " + std::to_string(values[i]) + "; expected " + std::to_string(low) + " to " +
                     std::to_string(high) + " for codes of four bits.");
      }
    }
  }
  const ReleasedGil release;
  pack(w, values, scales.data, const_cast<std::uint8_t*>(w.codes), const_cast<void*>(w.scales));
}

void unpack_op(const In& packed_codes, const In& packed_scales, std::int64_t group_size, const Out& codes_NK,
               const Out& scales_NG) {
  const View codes = check("codes_NK", codes_NK, {Dtype::i8}, {any, any});
  const PackedMatrix w = check_packed("packed_codes", packed_codes, "packed_scales", packed_scales, codes.shape[0],
                                      codes.shape[1], group_size);
  const View scales =
      check("scales_NG", scales_NG, {w.float_scales ? Dtype::f32 : Dtype::u16}, {w.rows, w.groups});
  const ReleasedGil release;
  unpack(w, out<std::int8_t>(codes), out<void>(scales));
}

void packed_rows_op(const In& packed_codes, const In& packed_scales, std::int64_t rows, std::int64_t group_size,
                    const In& ids_T, const Out& out_TK) {
  const View ids = check("ids_T", ids_T, {Dtype::i64}, {any});
  const View result = check("out", out_TK, {Dtype::f32}, {ids.shape[0], any});
  const PackedMatrix w = check_packed("packed_codes", packed_codes, "packed_scales", packed_scales, rows,
                                      result.shape[1], group_size);
  for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
    const std::int64_t id = in<std::int64_t>(ids)[t];
    if (id < 0 || id >= rows) {
      refuse_value("ids_T[" + std::to_string(t) + "] is " + std::to_string(id) + "; expected 0 to " +
                   std::to_string(rows - 1) + ".");
    }
  }
  const ReleasedGil release;
  dequantize_rows(w, in<std::int64_t>(ids), ids.shape[0], out<float>(result));
}

}  // namespace

PackedMatrix check_packed(const char* codes_name, const In& codes, const char* scales_name, const In& scales,
                          std::int64_t rows, std::int64_t inner, std::int64_t group_size, std::int64_t stacked) {
  const std::size_t lead = stacked < 0 ? 0 : 1;
  const bool four_bits = codes.ndim() == lead + 4;
  PackedMatrix w = describe(rows, inner, group_size, four_bits);
  const std::int64_t blocks = blocks_of(w);
  View code_view, scale_view;
  if (stacked < 0) {
    code_view = four_bits ? check(codes_name, codes, {Dtype::u8}, {blocks, w.chunks, block_rows, 4})
                          : check(codes_name, codes, {Dtype::u8}, {blocks, w.chunks, 2, block_rows, 4});
    scale_view = check(scales_name, scales, {Dtype::u16, Dtype::f32}, {blocks, w.groups, block_rows});
  } else {
    code_view = four_bits ? check(codes_name, codes, {Dtype::u8}, {stacked, blocks, w.chunks, block_rows, 4})
                          : check(codes_name, codes, {Dtype::u8}, {stacked, blocks, w.chunks, 2, block_rows, 4});
    scale_view = check(scales_name, scales, {Dtype::u16, Dtype::f32}, {stacked, blocks, w.groups, block_rows});
  }
  w.codes = in<std::uint8_t>(code_view);
  w.scales = scale_view.data;
  w.float_scales = scale_view.dtype == Dtype::f32;
  return w;
}

Activations parse_activations(const std::string& name) {
  if (name == "int8") return Activations::int8;
  if (name != "float32") refuse_value("activations is '" + name + "'; expected int8 or float32.");
  return Activations::float32;
}

void bind_qgemm(nb::module_& m) {
  m.def("qgemm", &qgemm_op, "x_TK"_a.noconvert(), "codes"_a.noconvert(), "scales"_a.noconvert(), "rows"_a,
        "group_size"_a, "activations"_a, "out"_a.noconvert(), "bias_N"_a.noconvert() = nb::none(),
        "norm_K"_a.noconvert() = nb::none(), "eps"_a = 0.0, "add"_a = false, "isa"_a = nb::none());
  m.def("round_activations", &round_activations_op, "x_TK"_a.noconvert(), "group_size"_a, "four_bits"_a,
        "codes_TK"_a.noconvert(), "scales_TG"_a.noconvert(), "offsets_TG"_a.noconvert(), "isa"_a = nb::none());
  m.def("pack", &pack_op, "codes_NK"_a.noconvert(), "scales_NG"_a.noconvert(), "group_size"_a,
        "packed_codes"_a.noconvert(), "packed_scales"_a.noconvert());
  m.def("unpack", &unpack_op, "packed_codes"_a.noconvert(), "packed_scales"_a.noconvert(), "group_size"_a,
        "codes_NK"_a.noconvert(), "scales_NG"_a.noconvert());
  m.def("packed_rows", &packed_rows_op, "packed_codes"_a.noconvert(), "packed_scales"_a.noconvert(), "rows"_a,
        "group_size"_a, "ids_T"_a.noconvert(), "out"_a.noconvert());
}

}  // namespace tusi::bindings
