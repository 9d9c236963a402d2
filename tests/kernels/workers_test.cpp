// Threads that help with tasks: all of the work is done once, whoever comes, and what goes wrong comes back to the caller.
#include "switchyard/kernels/cpu/workers.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace switchyard::kernels::cpu {
namespace {

/// How often each of `count` pieces was done by call_together with so many threads.
std::vector<int> done(int64_t threads, int64_t count) {
  std::vector<int> times(static_cast<size_t>(count));
  std::atomic<int64_t> next{0};
  call_together(threads, [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) ++times[static_cast<size_t>(i)];
  });
  return times;
}

TEST(Workers, DoEachPieceOnce) {
  for (const int64_t threads : {1, 2, 3, 8, 2})
    for (int round = 0; round < 200; ++round) EXPECT_EQ(done(threads, 37), std::vector<int>(37, 1)) << threads;
}

TEST(Workers, NoMoreThreadsThanAsked) {
  std::atomic<int> inside{0}, most{0};
  for (int round = 0; round < 50; ++round)
    call_together(3, [&] {
      const int here = ++inside;
      for (int seen = most; seen < here && !most.compare_exchange_weak(seen, here);) {}
      std::this_thread::yield();
      --inside;
    });
  EXPECT_LE(most, 3);
  EXPECT_EQ(inside, 0);
}

TEST(Workers, FromSeveralThreadsAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 300; ++round) wrong += done(3, 11) != std::vector<int>(11, 1);
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Workers, ABodyHasOneThreadAndRunsAnotherAlone) {
  const int before = at::get_num_threads();
  at::set_num_threads(4);
  std::atomic<bool> one{true}, alone{true};
  call_together(4, [&] {
    one = one && at::get_num_threads() == 1;
    const std::thread::id self = std::this_thread::get_id();
    call_together(4, [&] { alone = alone && std::this_thread::get_id() == self; });
  });
  EXPECT_TRUE(one);
  EXPECT_TRUE(alone);
  EXPECT_EQ(at::get_num_threads(), 4);
  at::set_num_threads(before);
}

TEST(Workers, GiveBackWhatABodyThrew) {
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> entered{0};
    EXPECT_THROW(call_together(4, [&] {
                   ++entered;
                   throw std::runtime_error("a body");
                 }), std::runtime_error);
    EXPECT_GE(entered, 1);
  }
  EXPECT_EQ(done(4, 5), std::vector<int>(5, 1));
}

}  // namespace
}  // namespace switchyard::kernels::cpu
