// Portable C++.
#include <cmath>
#include <limits>

#include "attention/attention.h"
#include "convert/convert.h"

namespace tusi::generic {
namespace {

constexpr int lanes = 8;

float element(const void* from, KvFormat format, std::int64_t at) {
  switch (format) {
    case KvFormat::f32: return static_cast<const float*>(from)[at];
    case KvFormat::bf16: {
      float value;
      widen_bf16(static_cast<const std::uint16_t*>(from) + at, &value, 1);
      return value;
    }
    case KvFormat::int8: return static_cast<float>(static_cast<const std::int8_t*>(from)[at]);
  }
  return 0.0F;
}

void turn_keys(const float* rows, std::int64_t stride, int count, int head_dim, int width, float* tile) {
  const int padded = (count + key_group - 1) / key_group * key_group;
  for (int h = 0; h < width; ++h) {
    for (int j = 0; j < padded; ++j) {
      tile[h * key_tile + j] = h < head_dim && j < count ? rows[j * stride + h] : 0.0F;
    }
  }
}

void pack_values(const ValueTile& values, const Ahead&, float* tile) {
  const int width = values.width;
  for (int j = 0; j < values.count; ++j) {
    for (int h = 0; h < width; ++h) {
      tile[j * width + h] = h < values.head_dim ? element(values.rows[j], values.format, h) : 0.0F;
    }
  }
}

void scores(const float* q, const KeyTile& keys, const Ahead&, float* s, int rows, int width, float scale) {
  const int padded = (keys.count + key_group - 1) / key_group * key_group;
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < padded; ++j) s[r * key_span + j] = 0.0F;
  }
  for (int h = 0; h < keys.head_dim; ++h) {
    float key[key_tile];
    for (int j = 0; j < padded; ++j) {
      key[j] = element(keys.groups[j / key_group], keys.format, h * keys.stride + j % key_group);
    }
    for (int r = 0; r < rows; ++r) {
      float* out = s + r * key_span;
      const float query = q[r * width + h];
      for (int j = 0; j < padded; ++j) out[j] += query * key[j];
    }
  }
  for (int r = 0; r < rows; ++r) {
    float* out = s + r * key_span;
    for (int j = 0; j < padded; ++j) out[j] *= keys.scales == nullptr ? scale : scale * keys.scales[j];
  }
}

SpanSum softmax(float* s, const float* scales, int valid, int keys) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int j = 0; j < valid; ++j) largest = s[j] > largest ? s[j] : largest;
  for (int j = 0; j < valid; ++j) s[j] = std::exp(s[j] - largest);
  for (int j = valid; j < keys; ++j) s[j] = 0.0F;
  float added[lanes] = {};
  for (int j = 0; j < keys; ++j) added[j % lanes] += s[j];
  for (int j = 0; scales != nullptr && j < keys; ++j) s[j] *= scales[j];
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

const AttentionKernels attention_kernels = {turn_keys, scores, softmax, pack_values, accumulate, nullptr, merge};

}  // namespace tusi::generic
