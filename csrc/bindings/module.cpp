// tusi.kernels._native: a thin, checked face of the core. Outputs are allocated by the Python side.
#include "bindings/checks.h"
#include "bindings/gil.h"

NB_MODULE(_native, m) {
  tusi::bindings::install_exit_hook();
  m.attr("interface") = TUSI_INTERFACE;
  tusi::bindings::bind_runtime(m);
  tusi::bindings::bind_gemm(m);
  tusi::bindings::bind_qgemm(m);
  tusi::bindings::bind_moe(m);
  tusi::bindings::bind_elementwise(m);
  tusi::bindings::bind_attention(m);
  tusi::bindings::bind_decoder(m);
  tusi::bindings::bind_sampling(m);
}
