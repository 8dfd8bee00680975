#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings/checks.h"
#include "bindings/gil.h"
#include "gemm/driver.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

void run(GemmArgs args, const View& x, const View& result, const View& weight, const IsaName& isa) {
  no_overlap(result, x, false);
  no_overlap(result, weight, false);
  const GemmTile tile = select_gemm_tile(args.format, choose_isa(isa));
  args.x = in<float>(x);
  args.weight = weight.data;
  args.out = out<float>(result);
  const ReleasedGil release;
  gemm(args, tile);
}

void gemm_float(WeightFormat format, const In& x_TK, const In& weight_NK, const Out& out_TN, const IsaName& isa) {
  const View x = check("x_TK", x_TK, {Dtype::f32}, {any, any});
  const Dtype dtype = format == WeightFormat::bf16 ? Dtype::u16 : Dtype::f32;
  const View weight = check("weight_NK", weight_NK, {dtype}, {any, x.shape[1]});
  const View result = check("out", out_TN, {Dtype::f32}, {x.shape[0], weight.shape[0]});
  run({nullptr, nullptr, nullptr, x.shape[0], weight.shape[0], x.shape[1], format}, x, result, weight, isa);
}

void gemm_f32(const In& x_TK, const In& weight_NK, const Out& out, const IsaName& isa) {
  gemm_float(WeightFormat::f32, x_TK, weight_NK, out, isa);
}

void gemm_bf16(const In& x_TK, const In& weight_NK, const Out& out, const IsaName& isa) {
  gemm_float(WeightFormat::bf16, x_TK, weight_NK, out, isa);
}

}  // namespace

void bind_gemm(nb::module_& m) {
  m.def("gemm_f32", &gemm_f32, "x_TK"_a.noconvert(), "weight_NK"_a.noconvert(), "out"_a.noconvert(),
        "isa"_a = nb::none());
  m.def("gemm_bf16", &gemm_bf16, "x_TK"_a.noconvert(), "weight_NK"_a.noconvert(), "out"_a.noconvert(),
        "isa"_a = nb::none());
}

}  // namespace tusi::bindings
