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
// lanes, on their side: a cache holds them so within each block, [H][S], and sixteen of them are read at once where they
// lie. Where S is no multiple of sixteen they are copied together first; a segment's, which are rows of an activation,
// are turned. Values stay rows. Rows of q, v and o are padded with zeros to `width`, a multiple of 16. Reference:
// paged_attention and varlen_attention in src/tusi/kernels/reference.py. Types and declarations only: ISA files include
// this.
#pragma once

#include <cstdint>

namespace tusi {

constexpr int key_tile = 64;
constexpr int key_group = 16;  // keys side by side
constexpr int key_span = 256;
constexpr int few_rows = 5;  // most rows of accumulate_few

// How keys and values are stored: float32; bfloat16 bits; int8 with one float32 scale a token and head. A scale is applied
// once a key to the score, once a value to the weight: kernels see int8 as whole numbers.
enum class KvFormat : int { f32, bf16, int8 };

// Up to key_tile keys of one head: element h of key 16 g + i is item h * stride + i from groups[g] on. Groups are whole:
// what lies behind the last key may be read and means nothing.
struct KeyTile {
  const void* groups[key_tile / key_group];
  const float* scales;  // [whole groups] if int8, else null
  std::int64_t stride;  // in items
  int count, head_dim;
  KvFormat format;
};

// Up to key_tile values of one head where they lie, each head_dim elements.
struct ValueTile {
  const void* rows[key_tile];
  int count, head_dim, width;
  KvFormat format;
};

// Cache lines that will be wanted next: `lines` of them from each base on, `step` bytes apart. A kernel asks for them while
// it works, for a cache's blocks lie too far apart for the processor to foresee them.
struct Ahead {
  const void* bases[key_tile];
  int count, lines, step;
};

struct SpanSum {
  float max, sum;
};

// The hot inner parts, one set an ISA. Rows of s and p are key_span long.
struct AttentionKernels {
  // Rows of float32, `stride` apart, become a tile [width][key_tile]; zero where h >= head_dim or j >= count.
  void (*turn_keys)(const float* rows, std::int64_t stride, int count, int head_dim, int width, float* tile);
  // s[r][j] = scale * q[r].k[j], for the keys of whole groups. Rows of q are `width` apart.
  void (*scores)(const float* q, const KeyTile& keys, const Ahead& next, float* s, int rows, int width, float scale);
  // One row of s becomes p in place; its first `valid` (1..keys) of `keys`, a multiple of 16, count, the others become 0.
  // Then p is multiplied by the scales of the values, unless these are null; the sum is taken before.
  SpanSum (*softmax)(float* s, const float* scales, int valid, int keys);
  // tile[j][h], zero where h >= head_dim.
  void (*pack_values)(const ValueTile& values, const Ahead& next, float* tile);
  // part[r] += sum over j < keys of p[r][j] * v[j]
  void (*accumulate)(const float* p, const float* tile, float* part, int rows, int keys, int width);
  // The same bits as pack_values and accumulate, for so few rows of p that a tile is not worth writing; head_dim is a
  // multiple of 16. Null where an ISA has none.
  void (*accumulate_few)(const float* p, const ValueTile& values, const Ahead& next, float* part, int rows);
  // Takes one row of a span into the total (see above).
  void (*merge)(const float* part, SpanSum span, float* out, SpanSum* total, int width);
};

struct KvCache {
  void* keys;         // [C][M][H][S]
  void* values;       // [C][M][S][H]
  float* key_scales;  // [C][M][S] if int8, else null
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
  const std::int64_t* slot_mapping;  // [T], each a block * S + offset
  KvCache cache;
  std::int64_t tokens, kv_heads, head_dim, block_size;  // T, M, H, S
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
