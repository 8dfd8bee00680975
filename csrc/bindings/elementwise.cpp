// Norms, activations, rotary embedding, routing and conversions: every op that treats rows or elements one by one.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "activation/dispatch.h"
#include "bindings/checks.h"
#include "bindings/gil.h"
#include "convert/dispatch.h"
#include "norm/dispatch.h"
#include "rotary/dispatch.h"
#include "routing/dispatch.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

std::int64_t count_of(const View& view) {
  std::int64_t count = 1;
  for (const std::int64_t size : view.shape) count *= size;
  return count;
}

// Elements per row of the last axis. ValueError if there is no last axis.
std::int64_t last_axis(const View& view) {
  if (view.shape.empty()) refuse_value(std::string(view.name) + " is a scalar; expected one axis or more.");
  return view.shape.back();
}

std::int64_t rows_of(const View& view) {
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < view.shape.size(); ++i) rows *= view.shape[i];
  return rows;
}

void rms_norm_op(const In& x_TD, const In& weight_D, double eps, const Out& out_TD, const IsaName& isa) {
  const View x = check("x_TD", x_TD, {Dtype::f32}, {});
  const View weight = check("weight_D", weight_D, {Dtype::f32}, {last_axis(x)});
  const View result = check("out", out_TD, {Dtype::f32}, {});
  same_shape(result, x);
  no_overlap(result, x, true);
  no_overlap(result, weight, false);
  const NormKernels& kernels = select_norm_kernels(choose_isa(isa));
  const ReleasedGil release;
  const NormArgs args{in<float>(x), in<float>(weight), nullptr, out<float>(result), rows_of(x), x.shape.back(),
                      static_cast<float>(eps)};
  rms_norm(args, kernels);
}

void layer_norm_op(const In& x_TD, const In& weight_D, const In& bias_D, double eps, const Out& out_TD,
                   const IsaName& isa) {
  const View x = check("x_TD", x_TD, {Dtype::f32}, {});
  const View weight = check("weight_D", weight_D, {Dtype::f32}, {last_axis(x)});
  const View bias = check("bias_D", bias_D, {Dtype::f32}, {last_axis(x)});
  const View result = check("out", out_TD, {Dtype::f32}, {});
  same_shape(result, x);
  no_overlap(result, x, true);
  no_overlap(result, weight, false);
  no_overlap(result, bias, false);
  const NormKernels& kernels = select_norm_kernels(choose_isa(isa));
  const ReleasedGil release;
  const NormArgs args{in<float>(x), in<float>(weight), in<float>(bias), out<float>(result), rows_of(x), x.shape.back(),
                      static_cast<float>(eps)};
  layer_norm(args, kernels);
}

std::pair<View, View> check_unary(const In& x_any, const Out& out_any) {
  const View x = check("x", x_any, {Dtype::f32}, {});
  const View result = check("out", out_any, {Dtype::f32}, {});
  same_shape(result, x);
  no_overlap(result, x, true);
  return {x, result};
}

void silu_and_mul_op(const In& gate_up_T2F, const Out& out_TF, const IsaName& isa) {
  const View gate_up = check("gate_up_T2F", gate_up_T2F, {Dtype::f32}, {});
  const std::int64_t width = last_axis(gate_up);
  if (width % 2 != 0) {
    refuse_value("gate_up_T2F has a last axis of " + std::to_string(width) +
                 "; expected an even one: gate and up side by side.");
  }
  View expected = gate_up;
  expected.name = "gate_up_T2F with its last axis halved";
  expected.shape.back() = width / 2;
  const View result = check("out", out_TF, {Dtype::f32}, {});
  same_shape(result, expected);
  no_overlap(result, gate_up, false);
  const ActivationKernels& kernels = select_activation_kernels(choose_isa(isa));
  const ReleasedGil release;
  silu_and_mul(in<float>(gate_up), out<float>(result), rows_of(gate_up), width / 2, kernels);
}

void gelu_op(const In& x_any, const Out& out_any) {
  const auto [x, result] = check_unary(x_any, out_any);
  const ReleasedGil release;
  gelu(in<float>(x), out<float>(result), count_of(x));
}

void quick_gelu_op(const In& x_any, const Out& out_any, const IsaName& isa) {
  const auto [x, result] = check_unary(x_any, out_any);
  const ActivationKernels& kernels = select_activation_kernels(choose_isa(isa));
  const ReleasedGil release;
  quick_gelu(in<float>(x), out<float>(result), count_of(x), kernels);
}

template <void (*op)(const RotaryArgs&, const RotaryKernels&)>
void rotary_op(const In& x_TNH, const In& cos_TP, const In& sin_TP, const Out& out_TNH, const IsaName& isa) {
  const View x = check("x_TNH", x_TNH, {Dtype::f32}, {any, any, any});
  if (x.shape[2] % 2 != 0) {
    refuse_value("x_TNH has a head dim of " + std::to_string(x.shape[2]) +
                 "; expected an even one: pairs are rotated.");
  }
  const View cos = check("cos_TP", cos_TP, {Dtype::f32}, {x.shape[0], x.shape[2] / 2});
  const View sin = check("sin_TP", sin_TP, {Dtype::f32}, {x.shape[0], x.shape[2] / 2});
  const View result = check("out", out_TNH, {Dtype::f32}, {});
  same_shape(result, x);
  no_overlap(result, x, true);
  no_overlap(result, cos, false);
  no_overlap(result, sin, false);
  const RotaryKernels& kernels = select_rotary_kernels(choose_isa(isa));
  const ReleasedGil release;
  const RotaryArgs args{in<float>(x), in<float>(cos), in<float>(sin), out<float>(result), x.shape[0], x.shape[1],
                        x.shape[2], x.shape[1] * x.shape[2]};
  op(args, kernels);
}

void topk_softmax_op(const In& logits_TE, const In& bias_E, std::int64_t k, double norm_min, const Out& weights_TK,
                     const Out& ids_TK, const IsaName& isa) {
  const View logits = check("logits_TE", logits_TE, {Dtype::f32}, {any, any});
  const View bias = check("bias_E", bias_E, {Dtype::f32}, {logits.shape[1]});
  if (k < 1 || k > logits.shape[1]) {
    refuse_value("k is " + std::to_string(k) + "; expected 1 to " + std::to_string(logits.shape[1]) +
                 ", the number of experts in logits_TE.");
  }
  const View weights = check("weights_TK", weights_TK, {Dtype::f32}, {logits.shape[0], k});
  const View ids = check("ids_TK", ids_TK, {Dtype::i32}, {logits.shape[0], k});
  const RoutingKernels& kernels = select_routing_kernels(choose_isa(isa));
  const ReleasedGil release;
  const RoutingArgs args{in<float>(logits), in<float>(bias), out<float>(weights), out<std::int32_t>(ids),
                         logits.shape[0], logits.shape[1], k, static_cast<float>(norm_min)};
  topk_softmax(args, kernels);
}

void bf16_to_f32_op(const In& bits_any, const Out& out_any) {
  const View bits = check("bits", bits_any, {Dtype::u16}, {});
  const View result = check("out", out_any, {Dtype::f32}, {});
  same_shape(result, bits);
  no_overlap(result, bits, false);
  const ReleasedGil release;
  bf16_to_f32(in<std::uint16_t>(bits), out<float>(result), count_of(bits));
}

void f32_to_bf16_op(const In& values_any, const Out& out_any, const IsaName& isa) {
  const View values = check("values", values_any, {Dtype::f32}, {});
  const View result = check("out", out_any, {Dtype::u16}, {});
  same_shape(result, values);
  no_overlap(result, values, false);
  const ConvertKernels& kernels = select_convert_kernels(choose_isa(isa));
  const ReleasedGil release;
  f32_to_bf16(in<float>(values), out<std::uint16_t>(result), count_of(values), kernels);
}

}  // namespace

void bind_elementwise(nb::module_& m) {
  m.def("rms_norm", &rms_norm_op, "x_TD"_a.noconvert(), "weight_D"_a.noconvert(), "eps"_a, "out"_a.noconvert(),
        "isa"_a = nb::none());
  m.def("layer_norm", &layer_norm_op, "x_TD"_a.noconvert(), "weight_D"_a.noconvert(), "bias_D"_a.noconvert(), "eps"_a,
        "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("silu_and_mul", &silu_and_mul_op, "gate_up_T2F"_a.noconvert(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("gelu", &gelu_op, "x"_a.noconvert(), "out"_a.noconvert());
  m.def("quick_gelu", &quick_gelu_op, "x"_a.noconvert(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("rotary_interleaved", &rotary_op<rotary_interleaved>, "x_TNH"_a.noconvert(), "cos_TP"_a.noconvert(),
        "sin_TP"_a.noconvert(), "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("rotary_half", &rotary_op<rotary_half>, "x_TNH"_a.noconvert(), "cos_TP"_a.noconvert(), "sin_TP"_a.noconvert(),
        "out"_a.noconvert(), "isa"_a = nb::none());
  m.def("topk_softmax", &topk_softmax_op, "logits_TE"_a.noconvert(), "bias_E"_a.noconvert(), "k"_a, "norm_min"_a,
        "weights_TK"_a.noconvert(), "ids_TK"_a.noconvert(), "isa"_a = nb::none());
  m.def("bf16_to_f32", &bf16_to_f32_op, "bits"_a.noconvert(), "out"_a.noconvert());
  m.def("f32_to_bf16", &f32_to_bf16_op, "values"_a.noconvert(), "out"_a.noconvert(), "isa"_a = nb::none());
}

}  // namespace tusi::bindings
