// What a draw's parameters must be for the kernels to trust them is checked here, draw by draw.
#include "sampling/sampling.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <vector>

#include "bindings/checks.h"
#include "bindings/gil.h"
#include "sampling/dispatch.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;
using IsaName = std::optional<std::string>;

View check_logits(const In& logits_RV) {
  const View logits = check("logits_RV", logits_RV, {Dtype::f32}, {any, any});
  if (logits.shape[1] < 1) refuse_value("logits_RV has no columns; expected a logit for every token.");
  return logits;
}

[[noreturn]] void refuse_draw(const char* name, std::int64_t n, const std::string& value, const char* expected) {
  refuse_value(std::string(name) + "[" + std::to_string(n) + "] is " + value + "; expected " + expected + ".");
}

void check_draw(const DrawParams& params, std::int64_t row, std::int64_t rows, std::int64_t n) {
  if (row < 0 || row >= rows) refuse_draw("row_ids_N", n, std::to_string(row), "a row of logits_RV");
  if (!(params.temperature > 0.0F)) {
    refuse_draw("temperature_N", n, std::to_string(params.temperature), "more than 0; the likeliest is argmax_rows");
  }
  if (!(params.log_min_p <= 0.0F)) refuse_draw("log_min_p_N", n, std::to_string(params.log_min_p), "0 or less");
  if (!(params.top_p > 0.0 && params.top_p <= 1.0)) {
    refuse_draw("top_p_N", n, std::to_string(params.top_p), "over 0 and at most 1");
  }
  if (params.top_k < 0) refuse_draw("top_k_N", n, std::to_string(params.top_k), "0 or more");
}

void argmax_rows_op(const In& logits_RV, const Out& ids_R, const IsaName& isa) {
  const View logits = check_logits(logits_RV);
  const View ids = check("ids_R", ids_R, {Dtype::i64}, {logits.shape[0]});
  no_overlap(ids, logits, false);
  const SamplingKernels& kernels = select_sampling_kernels(choose_isa(isa));
  const ReleasedGil release;
  argmax_rows(in<float>(logits), logits.shape[0], logits.shape[1], out<std::int64_t>(ids), kernels);
}

void draw_rows_op(const In& logits_RV, const In& row_ids_N, const In& temperature_N, const In& log_min_p_N,
                  const In& top_k_N, const In& top_p_N, const In& keys_N2, const In& index_N, bool must_be_finite,
                  const Out& ids_N, const IsaName& isa) {
  const View logits = check_logits(logits_RV);
  const View rows = check("row_ids_N", row_ids_N, {Dtype::i64}, {any});
  const std::int64_t draws = rows.shape[0];
  const View temperature = check("temperature_N", temperature_N, {Dtype::f32}, {draws});
  const View log_min_p = check("log_min_p_N", log_min_p_N, {Dtype::f32}, {draws});
  const View top_k = check("top_k_N", top_k_N, {Dtype::i64}, {draws});
  const View top_p = check("top_p_N", top_p_N, {Dtype::f64}, {draws});
  const View keys = check("keys_N2", keys_N2, {Dtype::i64}, {draws, 2});
  const View index = check("index_N", index_N, {Dtype::i64}, {draws});
  const View ids = check("ids_N", ids_N, {Dtype::i64}, {draws});
  for (const View* input : {&logits, &rows, &temperature, &log_min_p, &top_k, &top_p, &keys, &index}) {
    no_overlap(ids, *input, false);
  }
  std::vector<DrawParams> params;
  for (std::int64_t n = 0; n < draws; ++n) {
    params.push_back({in<float>(temperature)[n],
                      in<float>(log_min_p)[n],
                      in<double>(top_p)[n],
                      in<std::int64_t>(top_k)[n],
                      {static_cast<std::uint64_t>(in<std::int64_t>(keys)[2 * n]),
                       static_cast<std::uint64_t>(in<std::int64_t>(keys)[2 * n + 1])},
                      static_cast<std::uint64_t>(in<std::int64_t>(index)[n])});
    check_draw(params.back(), in<std::int64_t>(rows)[n], logits.shape[0], n);
  }
  const SamplingKernels& kernels = select_sampling_kernels(choose_isa(isa));
  const ReleasedGil release;
  draw_rows(in<float>(logits), logits.shape[1], in<std::int64_t>(rows), params.data(), draws, must_be_finite,
            out<std::int64_t>(ids), kernels);
}

}  // namespace

void bind_sampling(nb::module_& m) {
  m.def("argmax_rows", &argmax_rows_op, "logits_RV"_a.noconvert(), "ids_R"_a.noconvert(), "isa"_a = nb::none());
  m.def("draw_rows", &draw_rows_op, "logits_RV"_a.noconvert(), "row_ids_N"_a.noconvert(),
        "temperature_N"_a.noconvert(), "log_min_p_N"_a.noconvert(), "top_k_N"_a.noconvert(), "top_p_N"_a.noconvert(),
        "keys_N2"_a.noconvert(), "index_N"_a.noconvert(), "must_be_finite"_a, "ids_N"_a.noconvert(),
        "isa"_a = nb::none());
}

}  // namespace tusi::bindings
