// Where keys and values are written, and how they are rounded.
#include <cstring>

#include "attention/attention.h"
#include "check.h"

namespace tusi {
namespace {

TEST(store_kv_writes_its_slots_and_nothing_else) {
  // Keys and values side by side: 2 heads of 2, then the same again. Two blocks of three slots.
  const std::vector<float> rows = test::normal(3 * 8, 1);
  const std::vector<std::int64_t> slots{5, 0, 5};
  test::Guarded key(6 * 4), value(6 * 4);
  const KvCache cache{key.data(), value.data(), nullptr, nullptr, KvFormat::f32};
  store_kv({rows.data(), rows.data() + 4, 8, slots.data(), cache, 3, 2, 2, 3});
  CHECK(key.intact() && value.intact());
  int written = 0;
  for (int block = 0; block < 2; ++block) {
    for (int m = 0; m < 2; ++m) {
      for (int h = 0; h < 2; ++h) {
        for (int s = 0; s < 3; ++s) {
          const float k = key.data()[((block * 2 + m) * 2 + h) * 3 + s], v = value.data()[((block * 2 + m) * 3 + s) * 2 + h];
          const int token = block == 1 && s == 2 ? 2 : block == 0 && s == 0 ? 1 : -1;  // of a shared slot the later stays
          CHECK(k == (token < 0 ? test::Guarded::sentinel : rows[static_cast<std::size_t>(token * 8 + m * 2 + h)]));
          CHECK(v == (token < 0 ? test::Guarded::sentinel : rows[static_cast<std::size_t>(token * 8 + 4 + m * 2 + h)]));
          written += token < 0 ? 0 : 1;
        }
      }
    }
  }
  CHECK(written == 2 * 4);
}

TEST(runs_of_tokens_are_turned_as_single_ones_are) {
  const std::vector<float> rows = test::normal(40 * 12, 1);  // 40 tokens, one head of 6
  std::vector<std::int64_t> slots;
  for (std::int64_t t = 0; t < 40; ++t) slots.push_back(t + 3);
  for (const std::int64_t block_size : {1, 5, 16, 32}) {
    test::Guarded key(64 * 6), value(64 * 6), one_key(64 * 6), one_value(64 * 6);
    const KvCache cache{key.data(), value.data(), nullptr, nullptr, KvFormat::f32};
    const KvCache ones{one_key.data(), one_value.data(), nullptr, nullptr, KvFormat::f32};
    store_kv({rows.data(), rows.data() + 6, 12, slots.data(), cache, 40, 1, 6, block_size});
    for (std::int64_t t = 0; t < 40; ++t) {
      store_kv({rows.data() + t * 12, rows.data() + t * 12 + 6, 12, slots.data() + t, ones, 1, 1, 6, block_size});
    }
    CHECK(key.intact() && value.intact());
    CHECK(std::memcmp(key.data(), one_key.data(), 64 * 6 * sizeof(float)) == 0);
    CHECK(std::memcmp(value.data(), one_value.data(), 64 * 6 * sizeof(float)) == 0);
  }
}

TEST(int8_heads_carry_one_scale_and_show_damage) {
  const std::vector<float> rows{1.0F, -127.0F, 0.4F, 0.6F,      // scale 1; the second head's 0.6 / 127
                                0.0F, 0.0F,    1.0F, INFINITY,  // zeros; damage
                                1e-44F, 0.0F,  NAN,  1.0F};     // a denormal that 127 steps cannot divide; damage
  const std::vector<std::int64_t> slots{2, 0, 1};
  std::vector<std::int8_t> key(12, 99), value(12, 99);
  test::Guarded key_scales(6), value_scales(6);
  const KvCache cache{key.data(), value.data(), key_scales.data(), value_scales.data(), KvFormat::int8};
  store_kv({rows.data(), rows.data(), 4, slots.data(), cache, 3, 2, 2, 1});  // blocks of one slot: all lies as rows do
  CHECK(key_scales.intact() && value_scales.intact());
  CHECK(key[8] == 1 && key[9] == -127 && key_scales.data()[4] == 1.0F);
  CHECK(key[10] == 85 && key[11] == 127 && key_scales.data()[5] == 0.6F / 127.0F);
  CHECK(key[0] == 0 && key[1] == 0 && key_scales.data()[0] == 0.0F);
  CHECK(std::isnan(key_scales.data()[1]) && std::isnan(key_scales.data()[3]));
  CHECK(key_scales.data()[2] == 0.0F && key[4] == 0);
  CHECK(std::memcmp(key.data(), value.data(), key.size()) == 0);
}

}  // namespace
}  // namespace tusi
