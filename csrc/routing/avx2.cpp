// AVX2.
// Only this file's own code may be compiled with its flags: no shared inline helper, no standard library.
#include <immintrin.h>

#include "routing/routing.h"

namespace tusi::avx2 {
namespace {

constexpr std::int64_t lanes = 8, word_bits = 64;
static_assert(score_padding == lanes);

float largest_lane(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

float largest(const float* logits, std::int64_t experts) {
  float best = logits[0];
  std::int64_t e = 0;
  if (experts >= lanes) {
    __m256 all = _mm256_loadu_ps(logits);
    for (e = lanes; e + lanes <= experts; e += lanes) all = _mm256_max_ps(_mm256_loadu_ps(logits + e), all);
    best = largest_lane(all);
  }
  for (; e < experts; ++e) best = logits[e] > best ? logits[e] : best;
  return best;
}

// The largest score that is not NaN, once `taken` has become NaN: written by the vector that holds it, because reading a
// vector that a narrower store has just changed takes as long as all the rest.
float largest_untaken(float* scores, std::int64_t experts, std::int64_t taken) {
  const __m256i wanted = _mm256_set1_epi32(static_cast<int>(taken));
  __m256i ids = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 all = _mm256_set1_ps(-__builtin_inff());
  for (std::int64_t e = 0; e < experts; e += lanes) {
    const __m256 mark = _mm256_castsi256_ps(_mm256_cmpeq_epi32(ids, wanted));
    const __m256 some = _mm256_or_ps(_mm256_loadu_ps(scores + e), mark);  // all bits set: NaN
    _mm256_storeu_ps(scores + e, some);
    all = _mm256_max_ps(some, all);  // in this order a NaN changes nothing
    ids = _mm256_add_epi32(ids, _mm256_set1_epi32(static_cast<int>(lanes)));
  }
  return largest_lane(all);
}

// The first that equals `value`. No branch that depends on where it is, up to 64 of them.
std::int64_t first_equal(const float* scores, std::int64_t experts, float value) {
  const __m256 values = _mm256_set1_ps(value);
  std::int64_t begin = 0;
  for (;; begin += word_bits) {
    const std::int64_t left = experts - begin, count = left < word_bits ? left : word_bits;
    std::uint64_t equal = 0;
    for (std::int64_t e = 0; e < count; e += lanes) {
      const __m256 same = _mm256_cmp_ps(_mm256_loadu_ps(scores + begin + e), values, _CMP_EQ_OQ);
      equal |= static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_ps(same))) << e;
    }
    if (equal != 0) return begin + __builtin_ctzll(equal);
  }
}

// A taken one becomes NaN, as is what stands behind the last; -inf is a score like others.
void choose(float* scores, std::int64_t experts, std::int64_t k, std::int32_t* ids) {
  std::int64_t taken = -1;
  for (std::int64_t j = 0; j < k; ++j) {
    taken = first_equal(scores, experts, largest_untaken(scores, experts, taken));
    ids[j] = static_cast<std::int32_t>(taken);
  }
}

}  // namespace

const RoutingKernels routing_kernels = {largest, choose};

}  // namespace tusi::avx2
