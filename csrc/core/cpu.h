// Which instruction sets this processor and its operating system offer, and which one the kernels use.
#pragma once

namespace tusi {

enum class Isa : int { generic = 0, avx2 = 1, avx512 = 2 };

struct CpuFeatures {
  bool avx2, fma, f16c;
  bool avx512f, avx512bw, avx512dq, avx512vl, avx512_vnni, avx512_bf16;
  bool os_saves_ymm, os_saves_zmm;  // a feature that the OS does not save across switches cannot be used
  bool neon;
};

CpuFeatures detect_cpu() noexcept;

// True if the kernels of this set were compiled in and can run here.
bool isa_is_supported(Isa isa) noexcept;
Isa best_isa() noexcept;
// True if the AVX-512 kernels that need VNNI can run; integer products fall back to AVX2 without it.
bool has_vnni() noexcept;

// The set used where a caller names none. Starts as best_isa(); set_active_isa expects a supported one.
Isa active_isa() noexcept;
void set_active_isa(Isa isa) noexcept;

const char* isa_name(Isa isa) noexcept;
bool parse_isa(const char* name, Isa* isa) noexcept;

}  // namespace tusi
