// Compiled without any ISA flag: this code decides whether the others may run.
#include "core/cpu.h"

#include <atomic>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tusi {
namespace {

#if defined(__x86_64__)
struct Registers {
  std::uint32_t a, b, c, d;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) noexcept {
  Registers r{0, 0, 0, 0};
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool bit(std::uint32_t word, int index) noexcept { return (word >> index) & 1U; }

// What the operating system saves on a context switch (XCR0). Only legal once CPUID has shown OSXSAVE.
std::uint32_t read_xcr0() noexcept {
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

CpuFeatures detect_x86() noexcept {
  CpuFeatures f{};
  const Registers one = cpuid(1, 0);
  const Registers seven = cpuid(7, 0);
  const Registers seven_one = seven.a >= 1 ? cpuid(7, 1) : Registers{0, 0, 0, 0};
  f.fma = bit(one.c, 12);
  f.f16c = bit(one.c, 29);
  f.avx2 = bit(seven.b, 5);
  f.avx512f = bit(seven.b, 16);
  f.avx512dq = bit(seven.b, 17);
  f.avx512bw = bit(seven.b, 30);
  f.avx512vl = bit(seven.b, 31);
  f.avx512_vnni = bit(seven.c, 11);
  f.avx512_bf16 = bit(seven_one.a, 5);
  if (bit(one.c, 27)) {
    const std::uint32_t xcr0 = read_xcr0();
    constexpr std::uint32_t ymm = 0x06, zmm = 0xE6;
    f.os_saves_ymm = (xcr0 & ymm) == ymm;
    f.os_saves_zmm = (xcr0 & zmm) == zmm;
  }
  return f;
}
#endif

#if defined(TUSI_X86)
const CpuFeatures& features() noexcept {
  static const CpuFeatures found = detect_cpu();
  return found;
}
#endif

std::atomic<int>& active() noexcept {
  static std::atomic<int> isa{static_cast<int>(best_isa())};
  return isa;
}

constexpr const char* names[] = {"generic", "avx2", "avx512"};

}  // namespace

CpuFeatures detect_cpu() noexcept {
#if defined(__x86_64__)
  return detect_x86();
#else
  CpuFeatures f{};
#if defined(__aarch64__)
  f.neon = true;  // part of the base architecture
#endif
  return f;
#endif
}

bool isa_is_supported(Isa isa) noexcept {
  if (isa == Isa::generic) return true;
#if defined(TUSI_X86)
  const CpuFeatures& f = features();
  const bool avx2 = f.avx2 && f.fma && f.os_saves_ymm;
  if (isa == Isa::avx2) return avx2;
#if defined(TUSI_EMULATE_AVX512)
  return true;
#else
  return avx2 && f.avx512f && f.avx512bw && f.avx512dq && f.avx512vl && f.os_saves_zmm;
#endif
#else
  return false;
#endif
}

Isa best_isa() noexcept {
  if (isa_is_supported(Isa::avx512)) return Isa::avx512;
  return isa_is_supported(Isa::avx2) ? Isa::avx2 : Isa::generic;
}

bool has_vnni() noexcept {
#if defined(TUSI_X86)
#if defined(TUSI_EMULATE_AVX512)
  return true;
#else
  return isa_is_supported(Isa::avx512) && features().avx512_vnni;
#endif
#else
  return false;
#endif
}

Isa active_isa() noexcept { return static_cast<Isa>(active().load(std::memory_order_relaxed)); }

void set_active_isa(Isa isa) noexcept { active().store(static_cast<int>(isa), std::memory_order_relaxed); }

const char* isa_name(Isa isa) noexcept { return names[static_cast<int>(isa)]; }

bool parse_isa(const char* name, Isa* isa) noexcept {
  for (int i = 0; i < 3; ++i) {
    if (std::strcmp(name, names[i]) == 0) {
      *isa = static_cast<Isa>(i);
      return true;
    }
  }
  return false;
}

}  // namespace tusi
