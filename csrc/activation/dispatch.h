// Which activation kernels an ISA has.
#pragma once

#include "activation/activation.h"
#include "core/cpu.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported().
const ActivationKernels& select_activation_kernels(Isa isa) noexcept;

}  // namespace tusi
