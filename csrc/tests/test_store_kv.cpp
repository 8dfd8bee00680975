// Where keys and values are written, and how they are rounded.
#include <cstring>

#include "attention/attention.h"
#include "check.h"

namespace tusi {
namespace {

TEST(store_kv_writes_its_slots_and_nothing_else) {
  // Keys and values side by side: 2 heads of 2, then the same again.
  const std::vector<float> rows = test::normal(3 * 8, 1);
  const std::vector<std::int64_t> slots{5, 0, 5};
  test::Guarded key(6 * 4), value(6 * 4);
  store_kv({rows.data(), rows.data() + 4, 8, slots.data(), key.data(), value.data(), nullptr, nullptr, 3, 2, 2,
            KvFormat::f32});
  CHECK(key.intact() && value.intact());
  CHECK(std::memcmp(key.data(), rows.data() + 8, 16) == 0);
  CHECK(std::memcmp(value.data() + 20, rows.data() + 20, 16) == 0);  // the later token of a shared slot stays
  for (int i = 4; i < 20; ++i) CHECK(key.data()[i] == test::Guarded::sentinel);
}

TEST(int8_heads_carry_one_scale_and_show_damage) {
  const std::vector<float> rows{1.0F, -127.0F, 0.4F, 0.6F,      // scale 1; the second head's 0.6 / 127
                                0.0F, 0.0F,    1.0F, INFINITY,  // zeros; damage
                                1e-44F, 0.0F,  NAN,  1.0F};     // a denormal that 127 steps cannot divide; damage
  const std::vector<std::int64_t> slots{2, 0, 1};
  std::vector<std::int8_t> key(12, 99), value(12, 99);
  test::Guarded key_scales(6), value_scales(6);
  store_kv({rows.data(), rows.data(), 4, slots.data(), key.data(), value.data(), key_scales.data(), value_scales.data(),
            3, 2, 2, KvFormat::int8});
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
