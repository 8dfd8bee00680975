// Which routing kernels an ISA has.
#pragma once

#include "core/cpu.h"
#include "routing/routing.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported(). AVX-512 takes those of AVX2.
const RoutingKernels& select_routing_kernels(Isa isa) noexcept;

}  // namespace tusi
