#include "moe/plan.h"

#include <algorithm>

#include "core/scratch.h"

namespace tusi {
namespace {

const void* at(const void* base, std::int64_t bytes) { return static_cast<const char*>(base) + bytes; }

// The matrix whose arrays lie so many bytes on.
Matrix moved(const Matrix& matrix, std::int64_t bytes, std::int64_t scale_bytes) {
  Matrix result = matrix;
  if (PackedMatrix* packed = std::get_if<PackedMatrix>(&result)) {
    packed->codes += bytes;
    packed->scales = at(packed->scales, scale_bytes);
  } else {
    PlainMatrix& plain = std::get<PlainMatrix>(result);
    plain.values = at(plain.values, bytes);
  }
  return result;
}

bool in_pool(const MoeArgs& a, std::int64_t token, bool vision) {
  return vision == (a.is_vision != nullptr && a.is_vision[token] != 0);
}

void add_pool(const MoeArgs& a, const Pool& pool, bool vision, MoePlan* plan) {
  const std::size_t experts = static_cast<std::size_t>(pool.experts.count);
  thread_local Scratch scratch;
  std::int64_t* next = scratch.take<std::int64_t>(pool.experts.count + 1);
  std::fill_n(next, experts + 1, 0);
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    if (!in_pool(a, t, vision)) continue;
    for (std::int64_t j = 0; j < a.top_k; ++j) ++next[static_cast<std::size_t>(a.topk_ids[t * a.top_k + j]) + 1];
  }
  std::int64_t first = plan->rows();
  for (std::size_t e = 0; e < experts; ++e) {
    const std::int64_t rows = next[e + 1];
    if (rows > 0) plan->shares.push_back({&pool.experts, static_cast<std::int64_t>(e), first, rows});
    next[e] = first;
    first += rows;
  }
  plan->tokens.resize(static_cast<std::size_t>(first));
  plan->weights.resize(static_cast<std::size_t>(first));
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    if (!in_pool(a, t, vision)) continue;
    for (std::int64_t j = 0; j < a.top_k; ++j) {
      const std::int64_t choice = t * a.top_k + j;
      const auto row = static_cast<std::size_t>(next[static_cast<std::size_t>(a.topk_ids[choice])]++);
      plan->tokens[row] = static_cast<std::int32_t>(t);
      plan->weights[row] = a.topk_weights[choice];
    }
  }
}

void add_shared(const MoeArgs& a, MoePlan* plan) {
  plan->shares.push_back({a.shared, 0, plan->rows(), a.tokens});
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    plan->tokens.push_back(static_cast<std::int32_t>(t));
    plan->weights.push_back(1.0F);
  }
}

}  // namespace

Matrix Share::gate_up() const {
  return moved(experts->gate_up, number * experts->gate_up_stride, number * experts->gate_up_scales);
}

Matrix Share::down() const {
  return moved(experts->down, number * experts->down_stride, number * experts->down_scales);
}

void make_plan(const MoeArgs& args, MoePlan* plan) {
  plan->shares.clear();
  plan->tokens.clear();
  plan->weights.clear();
  plan->widest = 0;
  if (args.text != nullptr) add_pool(args, *args.text, false, plan);
  if (args.text != nullptr && args.is_vision != nullptr) add_pool(args, *args.vision, true, plan);
  if (args.shared != nullptr) add_shared(args, plan);
  for (const Share& share : plan->shares) plan->widest = std::max(plan->widest, share.rows);
}

}  // namespace tusi
