// Which rows go to which expert, sorted by expert.
#pragma once

#include <cstdint>
#include <vector>

#include "moe/moe.h"

namespace tusi {

// One expert's share: rows first..first + rows of the sorted list, and where its matrices lie.
struct Share {
  const Experts* experts;
  std::int64_t number, first, rows;

  Matrix gate_up() const;
  Matrix down() const;
};

struct MoePlan {
  std::vector<Share> shares;             // text experts, vision experts, the shared one; only those that have rows
  std::vector<std::int32_t> tokens;      // of each row of the sorted list
  std::vector<float> weights;            // of each row
  std::int64_t widest;                   // the largest number of rows of a share

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};

// Fills the plan from the routing that args' topk arrays hold.
void make_plan(const MoeArgs& args, MoePlan* plan);

}  // namespace tusi
