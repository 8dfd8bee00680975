// Which norm kernels an ISA has.
#pragma once

#include "core/cpu.h"
#include "norm/norm.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported().
const NormKernels& select_norm_kernels(Isa isa) noexcept;

}  // namespace tusi
