#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/checks.h"
#include "bindings/gil.h"
#include "ceilings/ceilings.h"
#include "core/thread_pool.h"

namespace tusi::bindings {
namespace {

using namespace nb::literals;

nb::dict cpu_features() {
  const CpuFeatures f = detect_cpu();
  nb::dict found;
  found["avx2"] = f.avx2;
  found["fma"] = f.fma;
  found["f16c"] = f.f16c;
  found["avx512f"] = f.avx512f;
  found["avx512bw"] = f.avx512bw;
  found["avx512dq"] = f.avx512dq;
  found["avx512vl"] = f.avx512vl;
  found["avx512_vnni"] = f.avx512_vnni;
  found["avx512_bf16"] = f.avx512_bf16;
  found["os_saves_ymm"] = f.os_saves_ymm;
  found["os_saves_zmm"] = f.os_saves_zmm;
  found["neon"] = f.neon;
  return found;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if (isa_is_supported(isa)) names.emplace_back(isa_name(isa));
  }
  return names;
}

void set_threads(std::int64_t count) {
  if (count < 1 || count > 1024) refuse_value("n is " + std::to_string(count) + "; expected 1 to 1024 threads.");
  const ReleasedGil release;
  set_num_threads(static_cast<int>(count));
}

std::vector<double> bandwidths(std::int64_t bytes, int rounds, const std::optional<std::string>& isa) {
  if (bytes < 1 || rounds < 1)
    refuse_value("n_bytes is " + std::to_string(bytes) + " and rounds " + std::to_string(rounds) +
                 "; expected 1 or more of both.");
  const Isa chosen = choose_isa(isa);
  std::vector<double> rates;
  {
    const ReleasedGil release;
    rates = read_bandwidths(bytes, rounds, chosen);
  }
  if (rates.empty()) throw std::bad_alloc();
  return rates;
}

Unit parse_unit(const std::string& name) {
  if (name == "int8") return Unit::int8;
  if (name == "bf16") return Unit::bf16;
  if (name != "fp32") refuse_value("unit is '" + name + "'; expected int8, bf16 or fp32.");
  return Unit::fp32;
}

std::vector<double> peaks(const std::string& unit, int rounds, double seconds, const std::optional<std::string>& isa) {
  if (rounds < 1 || !(seconds >= 0.0 && seconds <= 60.0))
    refuse_value("rounds is " + std::to_string(rounds) + " and seconds " + std::to_string(seconds) +
                 "; expected 1 or more, and 0 to 60.");
  const Unit wanted = parse_unit(unit);
  const Isa chosen = choose_isa(isa);
  const ReleasedGil release;
  return unit_peaks(wanted, rounds, seconds, chosen);
}

}  // namespace

void bind_runtime(nb::module_& m) {
  m.def("cpu_features", &cpu_features);
  m.def("supported_isas", &supported_isas);
  m.def("active_isa", [] { return std::string(isa_name(active_isa())); });
  m.def("set_active_isa", [](const std::string& name) { set_active_isa(choose_isa(name)); }, "name"_a);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_threads, "n"_a);
  m.def("read_bandwidths", &bandwidths, "n_bytes"_a, "rounds"_a, "isa"_a.none());
  m.def("unit_peaks", &peaks, "unit"_a, "rounds"_a, "seconds"_a, "isa"_a.none());
}

}  // namespace tusi::bindings
