// Softmax attention. Keys are met one span of 256 at a time, from a request's first token on; a span's softmax is taken
// by itself and merged into what came before, so that no score matrix is held, spans can be computed on different
// threads, and a query's result depends on its own keys alone (not on the batch, on how the prompt was cut into chunks,
// on the block size or on the threads). It does differ between ISAs.
//
//   for each span:  s = scale * q.k;  m' = max s;  p = exp(s - m');  l' = sum p;  o' = p.v
//                   M = max(m, m');   (l, o) = exp(m - M) * (l, o) + exp(m' - M) * (l', o');   m = M
//   at the end      out = o / l
//
// Queries of one KV head's group share its keys: scratch row = query * group + head in group. Keys lie across vector
// lanes: a tile of 64 is widened to float32 and turned on its side, [width][64], values stay [64][width]. Rows of q, v
// and o are padded with zeros to `width`, a multiple of 16. Reference: paged_attention and varlen_attention in
// src/tusi/kernels/reference.py. Types and declarations only: ISA files include this.
#pragma once

#include <cstdint>

namespace tusi {

constexpr int key_tile = 64;
constexpr int key_span = 256;
constexpr int few_rows = 5;  // most rows of accumulate_few

// How keys and values are stored: float32; bfloat16 bits; int8 with one float32 scale a token and head.
enum class KvFormat : int { f32, bf16, int8 };

// Up to key_tile keys (or values) of one head where they lie. next: rows that will be wanted
// after these; a kernel asks for them meanwhile, for a cache's rows lie too far apart for the processor to foresee them.
struct KvRows {
  const void* const* rows;  // [count], each head_dim elements
  const float* scales;      // [count]; meaningless unless int8
  int count, head_dim, width;
  KvFormat format;
  const void* const* next;  // [next_count]
  int next_count;
};

struct SpanSum {
  float max, sum;
};

// The hot inner parts, one set an ISA. Rows of s and p are key_span long.
struct AttentionKernels {
  // tile[h][j]: element h of key j; zero where h >= head_dim or j >= count (up to the next multiple of 16).
  void (*pack_keys)(const KvRows& rows, float* tile);
  // tile[j][h], zero where h >= head_dim.
  void (*pack_values)(const KvRows& rows, float* tile);
  // s[r][j] = scale * q[r].k[j] for j < keys, a multiple of 16.
  void (*scores)(const float* q, const float* tile, float* s, int rows, int keys, int width, float scale);
  // One row of s becomes p in place; its first `valid` (1..keys) of `keys` count, the others become 0.
  SpanSum (*softmax)(float* s, int valid, int keys);
  // part[r] += sum over j < keys of p[r][j] * v[j]
  void (*accumulate)(const float* p, const float* tile, float* part, int rows, int keys, int width);
  // The same bits as pack_values and accumulate, for so few rows of p that a tile is not worth writing; head_dim is a
  // multiple of 16. Null where an ISA has none.
  void (*accumulate_few)(const float* p, const KvRows& values, float* part, int rows);
  // Takes one row of a span into the total (see above).
  void (*merge)(const float* part, SpanSum span, float* out, SpanSum* total, int width);
};

struct KvCache {
  void* keys;         // [C][S][M][H]
  void* values;       // the same
  float* key_scales;  // [C][S][M] if int8, else null
  float* value_scales;
  KvFormat format;
};

struct PagedAttentionArgs {
  const float* q;  // token t's query heads begin at q + t * q_stride
  std::int64_t q_stride;
  KvCache cache;
  const std::int32_t* block_table;                        // [R][B]
  const std::int32_t* query_start_loc;                    // [R + 1]
  const std::int32_t* seq_lens;                           // [R]
  float* out;                                             // [T][N][H]
  std::int64_t requests, blocks_per_request, block_size;  // R, B, S
  std::int64_t heads, kv_heads, head_dim;                 // N, M, H
  float scale;
};

struct VarlenAttentionArgs {
  const float* q;  // [T][N][H], as is out; the next token of q, k and v is `stride` floats on
  const float* k;
  const float* v;
  std::int64_t stride;
  const std::int32_t* cu_seqlens;  // [segments + 1]
  float* out;
  std::int64_t segments, heads, head_dim;
  float scale;
};

struct StoreKvArgs {
  const float* key;  // [T][M][H]; the next token is `stride` floats on
  const float* value;
  std::int64_t stride;
  const std::int64_t* slot_mapping;  // [T], each in 0..slots
  void* key_cache;                   // [slots][M][H]
  void* value_cache;
  float* key_scales;  // [slots][M] if int8
  float* value_scales;
  std::int64_t tokens, kv_heads, head_dim;
  KvFormat format;
};

// All indices must have been checked by the caller: seq_lens against query counts and the table, block ids against C.
void paged_attention(const PagedAttentionArgs& args, const AttentionKernels& kernels);
void varlen_attention(const VarlenAttentionArgs& args, const AttentionKernels& kernels);
void store_kv(const StoreKvArgs& args);

namespace generic {
extern const AttentionKernels attention_kernels;
}
namespace avx2 {
extern const AttentionKernels attention_kernels;
}
namespace avx512 {
extern const AttentionKernels attention_kernels;
}

}  // namespace tusi
