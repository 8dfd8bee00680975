#include "linear/linear.h"

#include "activation/dispatch.h"
#include "gemm/driver.h"

namespace tusi {
namespace {

void multiply(const LinearArgs& a, const PackedMatrix& w, const LinearKernels& kernels) {
  qgemm({w, a.x, a.norm_weight, a.bias, a.out, a.tokens, a.eps, a.add, a.activations}, kernels.packed);
}

void multiply(const LinearArgs& a, const PlainMatrix& w, const LinearKernels& kernels) {
  gemm({w, a.x, a.norm_weight, a.bias, a.out, a.tokens, a.eps, a.add}, kernels.plain(w.format));
}

}  // namespace

std::int64_t rows_of(const Matrix& matrix) noexcept {
  return std::visit([](const auto& w) { return w.rows; }, matrix);
}

std::int64_t inner_of(const Matrix& matrix) noexcept {
  return std::visit([](const auto& w) { return w.inner; }, matrix);
}

LinearKernels select_linear_kernels(Isa isa) noexcept {
  return {select_qgemm_kernels(isa), select_activation_kernels(isa), select_gemm_tile(WeightFormat::f32, isa),
          select_gemm_tile(WeightFormat::bf16, isa)};
}

void linear(const LinearArgs& args, const LinearKernels& kernels) {
  std::visit([&](const auto& w) { multiply(args, w, kernels); }, args.weight);
}

}  // namespace tusi
