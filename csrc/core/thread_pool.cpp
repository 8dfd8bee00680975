// How a job is handed out. `ticket` holds (job number << 32 | next item). A thread claims an item by moving the ticket
// on with a compare-and-swap, which fails if the job has changed meanwhile, so a thread that overslept can neither take
// an item of a job it did not read nor hold up its end: the caller waits for items, not for threads.
#include "core/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace tusi {
namespace {

constexpr std::uint64_t item_mask = 0xFFFFFFFFULL;
constexpr std::int64_t max_items = 0xFFFFFFFE;
constexpr int spins_before_sleep = 2000;  // some tens of microseconds: the gap between two kernels of one layer
// Then a worker gives its core to whoever wants it and looks again, some hundred microseconds in all: the gap between two
// steps of the engine. Waking a sleeping thread costs tens of microseconds at the first kernel of every step.
constexpr int yields_before_sleep = 300;

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

thread_local bool inside_pool = false;

class Pool {
 public:
  explicit Pool(int threads) {
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    stop_.store(true);
    wake();
    for (std::thread& worker : workers_) worker.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // One caller at a time.
  void run(std::int64_t items, detail::Body body, const void* context) {
    const std::uint64_t job = (ticket_.load() >> 32) + 1;
    ticket_.store((job << 32) | item_mask);  // closed: no item can be claimed while the job is written
    body_.store(body);
    context_.store(context);
    items_.store(static_cast<std::uint64_t>(items));
    done_.store(0);
    ticket_.store(job << 32);
    wake();
    inside_pool = true;
    drain();
    inside_pool = false;
    wait_for(static_cast<std::uint32_t>(items));
    ticket_.store((job << 32) | item_mask);
  }

 private:
  // Runs items of the present job until none is left.
  void drain() {
    for (;;) {
      std::uint64_t ticket = ticket_.load();
      const std::uint64_t item = ticket & item_mask;
      const detail::Body body = body_.load();
      const void* context = context_.load();
      const std::uint64_t items = items_.load();
      if (item >= items) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1)) continue;
      body(context, static_cast<std::int64_t>(item));
      if (done_.fetch_add(1) + 1 == static_cast<std::uint32_t>(items)) done_.notify_all();
    }
  }

  void wait_for(std::uint32_t items) {
    for (int spin = 0;; ++spin) {
      const std::uint32_t done = done_.load();
      if (done == items) return;
      if (spin < spins_before_sleep) {
        pause();
      } else {
        done_.wait(done);
      }
    }
  }

  void wake() {
    alarm_.fetch_add(1);
    alarm_.notify_all();
  }

  void work() {
    inside_pool = true;
    std::uint32_t heard = 0;
    while (!stop_.load()) {
      std::uint32_t now = alarm_.load();
      for (int spin = 0; now == heard && spin < spins_before_sleep; ++spin) {
        pause();
        now = alarm_.load();
      }
      for (int yield = 0; now == heard && yield < yields_before_sleep; ++yield) {
        std::this_thread::yield();
        now = alarm_.load();
      }
      if (now == heard) {
        alarm_.wait(heard);
        continue;
      }
      heard = now;
      drain();
    }
  }

  // `done_` is 32 bits wide so that waiting on it is one futex; jobs have fewer items than that.
  std::atomic<std::uint64_t> ticket_{item_mask};
  std::atomic<detail::Body> body_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<std::uint64_t> items_{0};
  std::atomic<std::uint32_t> done_{0};
  std::atomic<std::uint32_t> alarm_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

int cores_of_this_process() noexcept {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

// Everything that a fork must start afresh. Never destroyed: at exit the threads may still be asleep in it.
struct State {
  std::mutex turn;  // held while a kernel runs or the pool changes
  std::unique_ptr<Pool> pool;
};

std::atomic<State*> state{nullptr};
std::mutex state_guard;
std::atomic<int> wanted_threads{0};

void after_fork_in_child() {
  // The old state's mutex may be held by a thread that is not here, and its threads cannot be joined: leave it behind.
  state.store(nullptr);
  inside_pool = false;
  state_guard.unlock();
}

State& get_state() {
  State* found = state.load();
  if (found != nullptr) return *found;
  static const int registered =
      pthread_atfork([] { state_guard.lock(); }, [] { state_guard.unlock(); }, after_fork_in_child);
  (void)registered;
  const std::lock_guard<std::mutex> lock(state_guard);
  if (state.load() == nullptr) state.store(new State);
  return *state.load();
}

}  // namespace

int num_threads() noexcept {
  const int wanted = wanted_threads.load();
  return wanted > 0 ? wanted : cores_of_this_process();
}

void set_num_threads(int count) {
  State& s = get_state();
  const std::lock_guard<std::mutex> lock(s.turn);
  wanted_threads.store(count < 1 ? 1 : count);
  s.pool.reset();
}

namespace detail {

void run_on_pool(std::int64_t items, Body body, const void* context) {
  if (items <= 0) return;
  if (items > max_items) std::abort();  // four thousand million pieces: a caller's blocking is broken
  if (items == 1 || inside_pool || num_threads() == 1) {
    for (std::int64_t i = 0; i < items; ++i) body(context, i);
    return;
  }
  State& s = get_state();
  const std::lock_guard<std::mutex> lock(s.turn);
  if (s.pool == nullptr) s.pool = std::make_unique<Pool>(num_threads());
  s.pool->run(items, body, context);
}

}  // namespace detail
}  // namespace tusi
