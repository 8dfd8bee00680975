// A stack of decoder layers and the caches they write: checked once when they are made, so that a step checks only what
// changes from step to step.
#include "decoder/decoder.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <vector>

#include "attention/dispatch.h"
#include "bindings/attention_checks.h"
#include "bindings/gil.h"
#include "bindings/moe_handles.h"
#include "bindings/packed.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;
using Maybe = std::optional<In>;

// Every handle keeps what it points into alive.
struct MatrixHandle {
  Matrix matrix;
  nb::object arrays;
};

void make_packed_matrix(MatrixHandle* self, const In& codes, const In& scales, std::int64_t rows, std::int64_t inner,
                        std::int64_t group_size, nb::object keep) {
  new (self) MatrixHandle{check_packed("codes", codes, "scales", scales, rows, inner, group_size), std::move(keep)};
}

void make_plain_matrix(MatrixHandle* self, const In& weight_NK, nb::object keep) {
  const View view = check("weight_NK", weight_NK, {Dtype::f32, Dtype::u16}, {any, any});
  const WeightFormat format = view.dtype == Dtype::u16 ? WeightFormat::bf16 : WeightFormat::f32;
  new (self) MatrixHandle{PlainMatrix{view.data, view.shape[0], view.shape[1], format}, std::move(keep)};
}

struct LayerHandle {
  DecoderLayer layer;
  std::int64_t width;
  nb::object parts;
};

void refuse_size(const char* what, std::int64_t size, std::int64_t expected, const char* because) {
  if (size == expected) return;
  refuse_value(std::string(what) + " is " + std::to_string(size) + "; expected " + std::to_string(expected) + ", " +
               because + ".");
}

void make_layer(LayerHandle* self, const In& input_norm_D, const MatrixHandle& qkv, const MatrixHandle& o,
                const In& post_norm_D, const PoolHandle* text, const PoolHandle* vision, const ExpertsHandle* shared,
                nb::object keep) {
  const std::int64_t width = rows_of(o.matrix);
  refuse_size("the width of qkv's input", inner_of(qkv.matrix), width, "that of o's output");
  if ((text == nullptr) != (vision == nullptr)) {
    refuse_value("one of the text and vision pools is missing; a layer has both or neither.");
  }
  if (text == nullptr && shared == nullptr) refuse_value("the layer has neither pools nor shared experts.");
  DecoderLayer layer{};
  layer.input_norm = in<float>(check("input_norm_D", input_norm_D, {Dtype::f32}, {width}));
  layer.post_norm = in<float>(check("post_norm_D", post_norm_D, {Dtype::f32}, {width}));
  layer.qkv = qkv.matrix;
  layer.o = o.matrix;
  for (const PoolHandle* pool : {text, vision}) {
    if (pool != nullptr) check_width("pool's", pool->pool.experts, width);
  }
  if (shared != nullptr) {
    check_width("shared", shared->experts, width);
    if (shared->experts.count != 1) refuse_value("shared holds several experts; expected one that all tokens see.");
  }
  layer.text = text == nullptr ? nullptr : &text->pool;
  layer.vision = vision == nullptr ? nullptr : &vision->pool;
  layer.shared = shared == nullptr ? nullptr : &shared->experts;
  new (self) LayerHandle{layer, width, std::move(keep)};
}

struct CacheHandle {
  CacheViews views;
  nb::object arrays;
};

void make_cache(CacheHandle* self, const Out& key_cache, const Out& value_cache, const Scales& key_scales,
                const Scales& value_scales, nb::object keep) {
  const CacheViews views = check_cache(key_cache, value_cache, key_scales, value_scales);
  check_written(views, {});
  new (self) CacheHandle{views, std::move(keep)};
}

struct StackHandle {
  std::vector<DecoderLayer> layers;
  std::int64_t width, heads, head_dim, kv_heads, top_k;
  float eps, norm_min;
  Activations activations;
  nb::object parts;
};

void make_stack(StackHandle* self, const nb::list& layers, std::int64_t heads, std::int64_t kv_heads,
                std::int64_t head_dim, std::int64_t top_k, double eps, double norm_min, const std::string& activations) {
  if (layers.size() == 0) refuse_value("the stack has no layers.");
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    refuse_value(std::to_string(heads) + " heads share " + std::to_string(kv_heads) + " KV heads; expected a multiple.");
  }
  std::vector<DecoderLayer> all;
  const std::int64_t width = nb::cast<const LayerHandle&>(layers[0]).width;
  for (const nb::handle& item : layers) {
    const auto& handle = nb::cast<const LayerHandle&>(item);
    refuse_size("a layer's width", handle.width, width, "that of the first");
    refuse_size("the rows of qkv", rows_of(handle.layer.qkv), (heads + 2 * kv_heads) * head_dim,
                "all heads of queries, keys and values");
    refuse_size("the width of o's input", inner_of(handle.layer.o), heads * head_dim, "all heads of queries");
    for (const Pool* pool : {handle.layer.text, handle.layer.vision}) {
      if (pool != nullptr) check_top_k(*pool, top_k);
    }
    all.push_back(handle.layer);
  }
  new (self) StackHandle{std::move(all), width, heads, head_dim, kv_heads, top_k, static_cast<float>(eps),
                         static_cast<float>(norm_min), parse_activations(activations), layers};
}

// The caches' C arrays, one a layer, all alike and none where a step's arrays lie.
std::vector<KvCache> check_caches(const nb::list& caches, const StackHandle& stack,
                                  std::initializer_list<const View*> inputs, const CacheViews** first) {
  refuse_size("the number of caches", static_cast<std::int64_t>(caches.size()),
              static_cast<std::int64_t>(stack.layers.size()), "one a layer");
  std::vector<KvCache> found;
  found.reserve(stack.layers.size());
  *first = &nb::cast<const CacheHandle&>(caches[0]).views;
  refuse_size("the KV heads of a cache", (*first)->kv_heads(), stack.kv_heads, "those of the stack");
  refuse_size("the head dim of a cache", (*first)->head_dim(), stack.head_dim, "that of the stack");
  for (const nb::handle& item : caches) {
    const CacheViews& views = nb::cast<const CacheHandle&>(item).views;
    same_shape(views.key, (*first)->key);
    if (views.key.dtype != (*first)->key.dtype) refuse_value("the caches differ in their format; expected one for all.");
    check_written(views, inputs);
    found.push_back(views.cache());
  }
  return found;
}

void run_stack_op(const StackHandle& stack, const nb::list& caches, const Out& hidden_TD, const In& cos_TP,
                const In& sin_TP, const In& slot_mapping_T, const In& block_table_RB, const In& query_start_loc_R1,
                const In& seq_lens_R, const Maybe& vision_mask_T, double scale, const std::optional<Out>& topk_weights_LTK,
                const std::optional<Out>& topk_ids_LTK, const IsaName& isa) {
  const View hidden = check("hidden_TD", hidden_TD, {Dtype::f32}, {any, stack.width});
  const std::int64_t tokens = hidden.shape[0], count = static_cast<std::int64_t>(stack.layers.size());
  const auto [cos, sin] = check_angles(cos_TP, sin_TP, tokens, stack.head_dim);
  const View slots = check("slot_mapping_T", slot_mapping_T, {Dtype::i64}, {tokens});
  const CacheViews* cache = nullptr;
  const std::vector<KvCache> all = check_caches(caches, stack, {&hidden, &cos, &sin, &slots}, &cache);
  check_slots(slots, cache->slots());
  const BatchViews batch = check_batch(block_table_RB, query_start_loc_R1, seq_lens_R, tokens, *cache);
  for (const View* input : {&cos, &sin, &slots, &batch.table, &batch.starts, &batch.lengths}) {
    no_overlap(hidden, *input, false);
  }
  DecoderArgs args{};
  args.layers = stack.layers.data();
  args.caches = all.data();
  args.count = count;
  args.hidden = out<float>(hidden);
  args.tokens = tokens;
  args.width = stack.width;
  args.cos = in<float>(cos);
  args.sin = in<float>(sin);
  args.slot_mapping = in<std::int64_t>(slots);
  args.paged = paged_args(*cache, batch, stack.heads, scale);
  args.top_k = stack.top_k;
  args.eps = stack.eps;
  args.norm_min = stack.norm_min;
  args.activations = stack.activations;
  if (vision_mask_T) args.is_vision = in<std::uint8_t>(check("vision_mask_T", *vision_mask_T, {Dtype::u8}, {tokens}));
  if (topk_weights_LTK.has_value() != topk_ids_LTK.has_value()) {
    refuse_value("one of topk_weights_LTK and topk_ids_LTK is missing; expected both or neither.");
  }
  if (topk_ids_LTK) {
    args.topk_weights =
        out<float>(check("topk_weights_LTK", *topk_weights_LTK, {Dtype::f32}, {count, tokens, stack.top_k}));
    args.topk_ids = out<std::int32_t>(check("topk_ids_LTK", *topk_ids_LTK, {Dtype::i32}, {count, tokens, stack.top_k}));
  }
  const Isa chosen = choose_isa(isa);
  const LinearKernels linear_kernels = select_linear_kernels(chosen);
  const AttentionKernels& attention_kernels = select_attention_kernels(chosen);
  const ReleasedGil release;
  decoder(args, linear_kernels, attention_kernels);
}

}  // namespace

void bind_decoder(nb::module_& m) {
  nb::class_<MatrixHandle>(m, "Matrix")
      .def("__init__", &make_packed_matrix, "codes"_a.noconvert(), "scales"_a.noconvert(), "rows"_a, "inner"_a,
           "group_size"_a, "keep"_a)
      .def("__init__", &make_plain_matrix, "weight_NK"_a.noconvert(), "keep"_a);
  nb::class_<LayerHandle>(m, "DecoderLayer")
      .def("__init__", &make_layer, "input_norm_D"_a.noconvert(), "qkv"_a, "o"_a, "post_norm_D"_a.noconvert(),
           "text"_a.none(), "vision"_a.none(), "shared"_a.none(), "keep"_a);
  nb::class_<CacheHandle>(m, "KVCache")
      .def("__init__", &make_cache, "key_cache_CMHS"_a.noconvert(), "value_cache_CMSH"_a.noconvert(),
           "key_scales_CMS"_a.noconvert().none(), "value_scales_CMS"_a.noconvert().none(), "keep"_a);
  nb::class_<StackHandle>(m, "DecoderStack")
      .def("__init__", &make_stack, "layers"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "top_k"_a, "eps"_a, "norm_min"_a,
           "activations"_a);
  m.def("run_stack", &run_stack_op, "stack"_a, "caches"_a, "hidden_TD"_a.noconvert(), "cos_TP"_a.noconvert(),
        "sin_TP"_a.noconvert(), "slot_mapping_T"_a.noconvert(), "block_table_RB"_a.noconvert(),
        "query_start_loc_R1"_a.noconvert(), "seq_lens_R"_a.noconvert(), "vision_mask_T"_a.noconvert().none(), "scale"_a,
        "topk_weights_LTK"_a.noconvert().none(), "topk_ids_LTK"_a.noconvert().none(), "isa"_a = nb::none());
}

}  // namespace tusi::bindings
