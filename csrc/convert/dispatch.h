// Which conversions an ISA has.
#pragma once

#include "convert/convert.h"
#include "core/cpu.h"

namespace tusi {

// The kernels of an ISA that isa_is_supported(). AVX-512 takes those of AVX2.
const ConvertKernels& select_convert_kernels(Isa isa) noexcept;

}  // namespace tusi
