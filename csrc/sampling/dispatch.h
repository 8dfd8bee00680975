// Which sampling kernels an ISA has.
#pragma once

#include "core/cpu.h"
#include "sampling/sampling.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported().
const SamplingKernels& select_sampling_kernels(Isa isa) noexcept;

}  // namespace tusi
