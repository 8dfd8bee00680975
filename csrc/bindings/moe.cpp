#include "bindings/moe_handles.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <memory>

#include "bindings/gil.h"
#include "bindings/packed.h"

namespace tusi::bindings {

PoolHandle::PoolHandle(const In& weight_ED, const In& bias_E, nb::object handle, nb::object keep)
    : pool{}, arrays(std::move(keep)), experts(std::move(handle)) {
  pool.experts = nb::cast<const ExpertsHandle&>(experts).experts;
  const std::int64_t count = pool.experts.count;
  pool.router.weight = in<float>(check("weight_ED", weight_ED, {Dtype::f32}, {count, pool.experts.width}));
  pool.router.bias = in<float>(check("bias_E", bias_E, {Dtype::f32}, {count}));
}

void check_top_k(const Pool& pool, std::int64_t top_k) {
  if (top_k < 1 || top_k > pool.experts.count) {
    refuse_value("each token is to go to " + std::to_string(top_k) + " of " + std::to_string(pool.experts.count) +
                 " experts; expected 1 to all of them.");
  }
}

void check_width(const char* what, const Experts& experts, std::int64_t width) {
  if (experts.width != width) {
    refuse_value(std::string(what) + " experts take vectors of " + std::to_string(experts.width) +
                 "; expected " + std::to_string(width) + ", the width of x_TD.");
  }
}

namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

std::int64_t experts_in(const char* name, const In& array) {
  if (array.ndim() < 1 || array.shape(0) < 1) refuse_value(std::string(name) + " holds no expert.");
  return static_cast<std::int64_t>(array.shape(0));
}

std::int64_t stride_of(const In& array, std::int64_t count) { return static_cast<std::int64_t>(array.nbytes()) / count; }

void make_packed(ExpertsHandle* self, const In& gate_up_codes, const In& gate_up_scales, std::int64_t gate_up_group,
                 const In& down_codes, const In& down_scales, std::int64_t down_group, std::int64_t width,
                 std::int64_t inner, nb::object keep) {
  const std::int64_t count = experts_in("gate_up_codes", gate_up_codes);
  const std::int64_t padded = (inner + block_rows - 1) / block_rows * block_rows;
  new (self) ExpertsHandle{
      {check_packed("gate_up_codes", gate_up_codes, "gate_up_scales", gate_up_scales, 2 * padded, width, gate_up_group,
                    count),
       check_packed("down_codes", down_codes, "down_scales", down_scales, width, inner, down_group, count), count, width,
       inner, padded, stride_of(gate_up_codes, count), stride_of(gate_up_scales, count), stride_of(down_codes, count),
       stride_of(down_scales, count)},
      std::move(keep)};
}

PlainMatrix first_of(const View& stack) {
  return {stack.data, stack.shape[1], stack.shape[2],
          stack.dtype == Dtype::u16 ? WeightFormat::bf16 : WeightFormat::f32};
}

void make_plain(ExpertsHandle* self, const In& gate_up, const In& down, nb::object keep) {
  const std::int64_t count = experts_in("gate_up_E2FD", gate_up);
  const View outer = check("gate_up_E2FD", gate_up, {Dtype::f32, Dtype::u16}, {count, any, any});
  if (outer.shape[1] % 2 != 0) {
    refuse_value("gate_up_E2FD has " + std::to_string(outer.shape[1]) +
                 " rows an expert; expected an even number: gate's rows, then up's.");
  }
  const std::int64_t width = outer.shape[2], inner = outer.shape[1] / 2;
  const View back = check("down_EDF", down, {Dtype::f32, Dtype::u16}, {count, width, inner});
  new (self) ExpertsHandle{{first_of(outer), first_of(back), count, width, inner, inner, stride_of(gate_up, count), 0,
                            stride_of(down, count), 0},
                           std::move(keep)};
}

void fill_pools(const PoolHandle* text, const PoolHandle* vision, const ExpertsHandle* shared,
                const std::optional<In>& vision_mask_T, std::int64_t tokens, MoeArgs* args) {
  if (text != nullptr) {
    args->text = &text->pool;
    check_width("text", text->pool.experts, args->width);
    check_top_k(text->pool, args->top_k);
  }
  if (shared != nullptr) {
    args->shared = &shared->experts;
    check_width("shared", shared->experts, args->width);
    if (shared->experts.count != 1) refuse_value("shared holds several experts; expected one that all tokens see.");
  }
  if (text == nullptr && shared == nullptr) refuse_value("neither text nor shared experts were given.");
  if (!vision_mask_T) return;
  if (text == nullptr || vision == nullptr) refuse_value("vision_mask_T needs a text and a vision pool.");
  args->is_vision = in<std::uint8_t>(check("vision_mask_T", *vision_mask_T, {Dtype::u8}, {tokens}));
  args->vision = &vision->pool;
  check_width("vision", vision->pool.experts, args->width);
  check_top_k(vision->pool, args->top_k);
}

void moe_op(const In& x_TD, const Out& out_TD, const PoolHandle* text, const PoolHandle* vision,
            const ExpertsHandle* shared, const std::optional<In>& vision_mask_T, const Out& topk_weights_TK,
            const Out& topk_ids_TK, double norm_min, const std::optional<In>& norm_D, double eps, bool add,
            const std::string& activations, const IsaName& isa) {
  const View x = check("x_TD", x_TD, {Dtype::f32}, {any, any});
  const View result = check("out", out_TD, {Dtype::f32}, {x.shape[0], x.shape[1]});
  no_overlap(result, x, true);
  const View weights = check("topk_weights_TK", topk_weights_TK, {Dtype::f32}, {x.shape[0], any});
  const View ids = check("topk_ids_TK", topk_ids_TK, {Dtype::i32}, {x.shape[0], weights.shape[1]});
  MoeArgs args{};
  args.x = in<float>(x);
  args.out = out<float>(result);
  args.topk_weights = out<float>(weights);
  args.topk_ids = out<std::int32_t>(ids);
  args.tokens = x.shape[0];
  args.width = x.shape[1];
  args.top_k = weights.shape[1];
  args.eps = static_cast<float>(eps);
  args.norm_min = static_cast<float>(norm_min);
  args.add = add;
  args.activations = parse_activations(activations);
  if (norm_D) args.norm_weight = in<float>(check("norm_D", *norm_D, {Dtype::f32}, {args.width}));
  fill_pools(text, vision, shared, vision_mask_T, args.tokens, &args);
  const LinearKernels kernels = select_linear_kernels(choose_isa(isa));
  const ReleasedGil release;
  moe(args, kernels);
}

}  // namespace

void bind_moe(nb::module_& m) {
  nb::class_<ExpertsHandle>(m, "Experts")
      .def("__init__", &make_packed, "gate_up_codes"_a.noconvert(), "gate_up_scales"_a.noconvert(), "gate_up_group"_a,
           "down_codes"_a.noconvert(), "down_scales"_a.noconvert(), "down_group"_a, "width"_a, "inner"_a, "keep"_a)
      .def("__init__", &make_plain, "gate_up_E2FD"_a.noconvert(), "down_EDF"_a.noconvert(), "keep"_a);
  nb::class_<PoolHandle>(m, "Pool").def(nb::init<const In&, const In&, nb::object, nb::object>(),
                                        "weight_ED"_a.noconvert(), "bias_E"_a.noconvert(), "experts"_a, "keep"_a);
  m.def("moe", &moe_op, "x_TD"_a.noconvert(), "out"_a.noconvert(), "text"_a.none(), "vision"_a.none(),
        "shared"_a.none(), "vision_mask_T"_a.noconvert().none(), "topk_weights_TK"_a.noconvert(),
        "topk_ids_TK"_a.noconvert(), "norm_min"_a, "norm_D"_a.noconvert().none(), "eps"_a, "add"_a, "activations"_a,
        "isa"_a = nb::none());
}

}  // namespace tusi::bindings
