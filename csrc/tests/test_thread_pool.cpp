#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.h"
#include "core/thread_pool.h"

namespace tusi {
namespace {

// True if every item of a job is run exactly once.
bool each_item_runs_once(std::int64_t items) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(items));
  parallel_for(items, [&](std::int64_t i) { runs[static_cast<std::size_t>(i)].fetch_add(1); });
  for (const std::atomic<int>& count : runs) {
    if (count.load() != 1) return false;
  }
  return true;
}

TEST(each_item_of_many_jobs_runs_once) {
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    CHECK(num_threads() == threads);
    for (std::int64_t job = 0; job < 2000; ++job) CHECK(each_item_runs_once(job % 13));
  }
}

TEST(ranges_cover_everything_once) {
  std::vector<std::atomic<int>> runs(1003);
  parallel_ranges(1003, 10, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) runs[static_cast<std::size_t>(i)].fetch_add(1);
  });
  for (const std::atomic<int>& count : runs) CHECK(count.load() == 1);
}

// Whether a walk runs each unit once, in pieces of at most `most`.
bool walk_runs_each_unit_once(std::int64_t units, std::int64_t most) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(units));
  std::atomic<bool> fits{true};
  parallel_walk(units, most, [&](std::int64_t begin, std::int64_t end) {
    if (begin < 0 || begin >= end || end > units || end - begin > most) fits = false;
    for (std::int64_t i = begin; i < end; ++i) runs[static_cast<std::size_t>(i)].fetch_add(1);
  });
  for (const std::atomic<int>& count : runs) {
    if (count.load() != 1) return false;
  }
  return fits.load();
}

TEST(a_walk_runs_each_unit_once) {
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    for (std::int64_t units = 0; units < 120; ++units) {
      for (const std::int64_t most : {1, 2, 5, 200}) CHECK(walk_runs_each_unit_once(units, most));
    }
  }
}

TEST(a_walk_goes_on_in_long_pieces_and_ends_in_short_ones) {
  set_num_threads(1);
  std::vector<std::int64_t> ends;
  parallel_walk(40, 8, [&](std::int64_t begin, std::int64_t end) {
    CHECK(begin == (ends.empty() ? 0 : ends.back()));
    ends.push_back(end);
  });
  CHECK(ends.front() == 8);
  CHECK(ends.back() == 40);
  CHECK(ends[ends.size() - 2] == 39);
}

TEST(several_callers_and_a_changing_pool) {
  set_num_threads(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int job = 0; job < 300; ++job) wrong += each_item_runs_once(7) ? 0 : 1;
    });
  }
  for (int i = 0; i < 20; ++i) set_num_threads(2 + i % 3);
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong.load() == 0);
}

TEST(a_job_inside_a_job_runs_in_its_caller) {
  set_num_threads(3);
  std::atomic<int> runs{0};
  parallel_for(5, [&](std::int64_t) { parallel_for(4, [&](std::int64_t) { runs.fetch_add(1); }); });
  CHECK(runs.load() == 20);
}

TEST(a_forked_child_works) {
  set_num_threads(3);
  CHECK(each_item_runs_once(50));
  const pid_t child = fork();
  if (child == 0) _exit(each_item_runs_once(50) && each_item_runs_once(50) ? 0 : 1);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(each_item_runs_once(50));
}

}  // namespace
}  // namespace tusi
