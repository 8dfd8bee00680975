// Choosing a token from a row of logits: the likeliest, or one drawn at random after temperature and truncation.
//
//   argmax_rows  the id of the largest logit, the lowest id among equals; -1 where the row holds NaN or inf
//   draw_rows    an id drawn from softmax((logits - largest) / temperature), of which are kept: those whose logarithm
//                of probability relative to the largest is at least log_min_p; of those the top_k likeliest (0: all);
//                of those the fewest likeliest that have top_p of the probability. Ties by lowest id. -1 where nothing
//                can be drawn (NaN, inf, or all -inf); must_be_finite: also where any logit is -inf.
//
// The draw inverts the distribution function over ids in order with number `index` of the stream of `key`, so it
// depends on nothing but the row and its own parameters. Reference: src/tusi/kernels/reference_sampling.py. Types and
// declarations only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

struct Extremes {
  float largest, smallest;  // both NaN if one value is
};

// A row is looked at in blocks, so that most of it can be passed over by what is known of them.
constexpr std::int64_t sampling_block = 64;

struct SamplingKernels {
  // Of one value or more; block_largest: the largest of each block, if no value is NaN.
  Extremes (*extremes)(const float* x, std::int64_t count, float* block_largest);
  // out = e^q with q = (x - largest) / temperature where x >= least and q >= lowest, else 0.
  void (*weights)(const float* x, float* out, std::int64_t count, float largest, float temperature, float least,
                  float lowest);
  // The sum, in double, of the values that are at least `threshold`.
  double (*sum_at_least)(const float* x, std::int64_t count, float threshold);
};

struct DrawParams {
  float temperature, log_min_p;
  double top_p;
  std::int64_t top_k;
  std::uint64_t key[2], index;
};

void argmax_rows(const float* logits, std::int64_t rows, std::int64_t vocab, std::int64_t* ids,
                 const SamplingKernels& kernels);

// Draw n is from row row_ids[n], with params[n].
void draw_rows(const float* logits, std::int64_t vocab, const std::int64_t* row_ids, const DrawParams* params,
               std::int64_t draws, bool must_be_finite, std::int64_t* ids, const SamplingKernels& kernels);

// Number `index` of a stream, in [0, 1): NumPy's Philox(key, counter = index * 2^64), its first random().
double uniform_of(const std::uint64_t key[2], std::uint64_t index);

namespace generic {
extern const SamplingKernels sampling_kernels;
}
namespace avx2 {
extern const SamplingKernels sampling_kernels;
}
namespace avx512 {
extern const SamplingKernels sampling_kernels;
}

}  // namespace tusi
