// Packed integer matrices as they come from Python: two arrays and three numbers, checked against the layout.
#pragma once

#include "bindings/checks.h"
#include "qgemm/driver.h"

namespace tusi::bindings {

// A matrix over `codes` [blocks][chunks](4 bits: [16][4]; 8 bits: [2][16][4]) and `scales` [blocks][groups][16]. With
// `stacked`, both have a leading axis of that many experts, and the result is the first. ValueError or TypeError that
// names the arguments with `prefix` before them.
PackedMatrix check_packed(const char* codes_name, const In& codes, const char* scales_name, const In& scales,
                          std::int64_t rows, std::int64_t inner, std::int64_t group_size, std::int64_t stacked = -1);

// "int8" or "float32".
Activations parse_activations(const std::string& name);

}  // namespace tusi::bindings
