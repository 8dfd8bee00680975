// Which rotary kernels an ISA has.
#pragma once

#include "core/cpu.h"
#include "rotary/rotary.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported(). AVX-512 takes those of AVX2.
const RotaryKernels& select_rotary_kernels(Isa isa) noexcept;

}  // namespace tusi
