// A layer's matrix, whatever its format, and the product that layers are made of.
//
//   out = (add ? out : 0) + (norm(x) @ weight.T + bias)      norm and bias if given
//
// Packed integers multiply as qgemm says, plain floats as gemm says; what holds for a row's result there holds here.
#pragma once

#include <cstdint>
#include <variant>

#include "activation/activation.h"
#include "core/cpu.h"
#include "gemm/gemm.h"
#include "qgemm/driver.h"
#include "qgemm/qgemm.h"

namespace tusi {

using Matrix = std::variant<PackedMatrix, PlainMatrix>;

std::int64_t rows_of(const Matrix& matrix) noexcept;
std::int64_t inner_of(const Matrix& matrix) noexcept;

// What layers need of an instruction set.
struct LinearKernels {
  const QgemmKernels& packed;
  const ActivationKernels& activation;  // of plain matrices; packed ones have theirs, the same bits everywhere
  GemmTile f32, bf16;

  GemmTile plain(WeightFormat format) const noexcept { return format == WeightFormat::f32 ? f32 : bf16; }
};

// Those of an ISA that isa_is_supported().
LinearKernels select_linear_kernels(Isa isa) noexcept;

struct LinearArgs {
  Matrix weight;
  const float* x;            // [T][K]
  const float* norm_weight;  // null, or [K]: x is RMS-normalised first
  const float* bias;         // null, or [N]
  float* out;                // [T][N]
  std::int64_t tokens;
  float eps;
  bool add;                  // to what out holds
  Activations activations;   // of a packed matrix
};

void linear(const LinearArgs& args, const LinearKernels& kernels);

}  // namespace tusi
