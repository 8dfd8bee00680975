#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings/checks.h"
#include "bindings/gil.h"
#include "gemm/driver.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

using Maybe = std::optional<In>;

void gemm_float(WeightFormat format, const In& x_TK, const In& weight_NK, const Out& out_TN, const Maybe& bias_N,
                const Maybe& norm_K, double eps, bool add, const IsaName& isa) {
  const View x = check("x_TK", x_TK, {Dtype::f32}, {any, any});
  const Dtype dtype = format == WeightFormat::bf16 ? Dtype::u16 : Dtype::f32;
  const View weight = check("weight_NK", weight_NK, {dtype}, {any, x.shape[1]});
  const View result = check("out", out_TN, {Dtype::f32}, {x.shape[0], weight.shape[0]});
  no_overlap(result, x, false);
  no_overlap(result, weight, false);
  GemmArgs args{};
  args.weight = {weight.data, weight.shape[0], weight.shape[1], format};
  args.x = in<float>(x);
  args.out = out<float>(result);
  args.tokens = x.shape[0];
  args.eps = static_cast<float>(eps);
  args.add = add;
  if (bias_N) args.bias = in<float>(check("bias_N", *bias_N, {Dtype::f32}, {weight.shape[0]}));
  if (norm_K) args.norm_weight = in<float>(check("norm_K", *norm_K, {Dtype::f32}, {x.shape[1]}));
  const GemmTile tile = select_gemm_tile(format, choose_isa(isa));
  const ReleasedGil release;
  gemm(args, tile);
}

template <WeightFormat format>
void gemm_op(const In& x_TK, const In& weight_NK, const Out& out, const Maybe& bias_N, const Maybe& norm_K, double eps,
             bool add, const IsaName& isa) {
  gemm_float(format, x_TK, weight_NK, out, bias_N, norm_K, eps, add, isa);
}

template <WeightFormat format>
void bind(nb::module_& m, const char* name) {
  m.def(name, &gemm_op<format>, "x_TK"_a.noconvert(), "weight_NK"_a.noconvert(), "out"_a.noconvert(),
        "bias_N"_a.noconvert() = nb::none(), "norm_K"_a.noconvert() = nb::none(), "eps"_a = 0.0, "add"_a = false,
        "isa"_a = nb::none());
}

}  // namespace

void bind_gemm(nb::module_& m) {
  bind<WeightFormat::f32>(m, "gemm_f32");
  bind<WeightFormat::bf16>(m, "gemm_bf16");
}

}  // namespace tusi::bindings
