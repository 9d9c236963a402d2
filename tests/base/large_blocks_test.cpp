#include "switchyard/base/large_blocks.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

struct LargeBlocks : ::testing::Test {
  void SetUp() override {
    if (!keep_large_blocks()) GTEST_SKIP() << "no range of a terabyte of addresses can be had here";
  }
};

constexpr int64_t kMegabyte = 1 << 20;

at::Tensor bytes(int64_t size) { return at::empty({size}, at::kByte); }

/// One round of a "step": large tensors of several sizes, small ones that outlive them, in the order that their sizes give.
std::vector<const void*> step(std::vector<at::Tensor>& survivors) {
  std::vector<const void*> places;
  std::vector<at::Tensor> live;
  for (const int64_t size : {3, 17, 8, 8, 40, 2}) {
    live.push_back(bytes(size * kMegabyte + 100));
    places.push_back(live.back().const_data_ptr());
    if (live.size() > 2) live.erase(live.begin());
    survivors.push_back(bytes(100));
  }
  return places;
}

TEST_F(LargeBlocks, StepThatRepeatsFindsItsMemoryAgain) {
  std::vector<at::Tensor> survivors;
  const auto first = step(survivors);
  for (int round = 0; round < 20; ++round) EXPECT_EQ(step(survivors), first);
}

TEST_F(LargeBlocks, NeighboursThatAreFreeBecomeOne) {
  for (const std::vector<int>& order : {std::vector<int>{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}}) {
    std::vector<at::Tensor> parts;
    for (int i = 0; i < 3; ++i) parts.push_back(bytes(30 * kMegabyte));
    std::set<const void*> places;
    for (const at::Tensor& part : parts) places.insert(part.const_data_ptr());
    for (const int i : order) parts[static_cast<size_t>(i)] = at::Tensor();
    EXPECT_TRUE(places.contains(bytes(90 * kMegabyte).const_data_ptr()));
  }
}

TEST_F(LargeBlocks, HoldsWhatWasWrittenFromManyThreads) {
  const auto work = [](uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<std::pair<at::Tensor, uint8_t>> live;
    for (int i = 0; i < 300; ++i) {
      const auto value = static_cast<uint8_t>(random());
      live.emplace_back(at::full({static_cast<int64_t>(random() % (4 * kMegabyte))}, value, at::kByte), value);
      if (live.size() < 6) continue;
      const size_t chosen = random() % live.size();
      const auto& [tensor, wanted] = live[chosen];
      if (tensor.numel() > 0) {
        ASSERT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64, 0u);
        ASSERT_TRUE(tensor.eq(wanted).all().item<bool>());
      }
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(chosen));
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 4; ++seed) threads.emplace_back(work, seed);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(LargeBlocks, MemoryThatCannotBeIsAnErrorAsBefore) {
  EXPECT_ANY_THROW(bytes(int64_t{1} << 50));
  EXPECT_EQ(bytes(2 * kMegabyte).numel(), 2 * kMegabyte);
}

}  // namespace
}  // namespace switchyard
