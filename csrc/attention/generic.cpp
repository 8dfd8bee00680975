// Portable C++.
#include <cmath>
#include <limits>

#include "attention/attention.h"
#include "convert/convert.h"

namespace tusi::generic {
namespace {

constexpr int lanes = 8;

float element(const KvRows& kv, int j, int h) {
  switch (kv.format) {
    case KvFormat::f32: return static_cast<const float*>(kv.rows[j])[h];
    case KvFormat::bf16: {
      float value;
      widen_bf16(static_cast<const std::uint16_t*>(kv.rows[j]) + h, &value, 1);
      return value;
    }
    case KvFormat::int8: return static_cast<float>(static_cast<const std::int8_t*>(kv.rows[j])[h]) * kv.scales[j];
  }
  return 0.0F;
}

void pack_keys(const KvRows& kv, float* tile) {
  const int padded = (kv.count + 15) / 16 * 16;
  for (int h = 0; h < kv.width; ++h) {
    for (int j = 0; j < padded; ++j) {
      tile[h * key_tile + j] = h < kv.head_dim && j < kv.count ? element(kv, j, h) : 0.0F;
    }
  }
}

void pack_values(const KvRows& kv, float* tile) {
  for (int j = 0; j < kv.count; ++j) {
    for (int h = 0; h < kv.width; ++h) tile[j * kv.width + h] = h < kv.head_dim ? element(kv, j, h) : 0.0F;
  }
}

void scores(const float* q, const float* tile, float* s, int rows, int keys, int width, float scale) {
  for (int r = 0; r < rows; ++r) {
    float* out = s + r * key_span;
    for (int j = 0; j < keys; ++j) out[j] = 0.0F;
    for (int h = 0; h < width; ++h) {
      const float query = q[r * width + h];
      for (int j = 0; j < keys; ++j) out[j] += query * tile[h * key_tile + j];
    }
    for (int j = 0; j < keys; ++j) out[j] *= scale;
  }
}

SpanSum softmax(float* s, int valid, int keys) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int j = 0; j < valid; ++j) largest = s[j] > largest ? s[j] : largest;
  for (int j = 0; j < valid; ++j) s[j] = std::exp(s[j] - largest);
  for (int j = valid; j < keys; ++j) s[j] = 0.0F;
  float added[lanes] = {};
  for (int j = 0; j < keys; ++j) added[j % lanes] += s[j];
  const float sum =
      ((added[0] + added[4]) + (added[1] + added[5])) + ((added[2] + added[6]) + (added[3] + added[7]));
  return {largest, sum};
}

void accumulate(const float* p, const float* tile, float* part, int rows, int keys, int width) {
  for (int r = 0; r < rows; ++r) {
    float* out = part + r * width;
    for (int j = 0; j < keys; ++j) {
      const float weight = p[r * key_span + j];
      for (int h = 0; h < width; ++h) out[h] += weight * tile[j * width + h];
    }
  }
}

void merge(const float* part, SpanSum span, float* out, SpanSum* total, int width) {
  const float largest = span.max > total->max ? span.max : total->max;
  const float before = std::exp(total->max - largest), now = std::exp(span.max - largest);
  for (int h = 0; h < width; ++h) out[h] = out[h] * before + part[h] * now;
  total->sum = total->sum * before + span.sum * now;
  total->max = largest;
}

}  // namespace

const AttentionKernels attention_kernels = {pack_keys, pack_values, scores, softmax, accumulate, nullptr, merge};

}  // namespace tusi::generic
