#include "switchyard/base/random.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;

// Known answers of Philox 4x32-10 published with the authors' reference implementation (Random123).
TEST(Philox, GivesThePublishedAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0, 0), (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffff, 0xffffffff),
            (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(StableHash, IsFnv1a) {
  EXPECT_EQ(stable_hash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(stable_hash("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(stable_hash("foobar"), 0x85944171f73967e8u);
}

TEST(Streams, DrawsDependOnSeedAndKeyAlone) {
  const Streams a(1), b(1), c(2);
  const RandomKey key{.purpose = "noise", .step = 3, .layer = 2};
  const at::Tensor first = a.uniform({100}, key);
  (void)a.normal({1000}, {.purpose = "other"});  // what was drawn between changes nothing
  EXPECT_TRUE(first.equal(a.uniform({100}, key)));
  EXPECT_TRUE(first.equal(b.uniform({100}, key)));
  EXPECT_FALSE(first.equal(c.uniform({100}, key)));
  const std::vector<RandomKey> others{{.purpose = "Noise", .step = 3, .layer = 2},
                                      {.purpose = "noise", .step = 4, .layer = 2},
                                      {.purpose = "noise", .step = 3, .micro = 1, .layer = 2},
                                      {.purpose = "noise", .step = 3, .layer = 3},
                                      {.purpose = "noise", .step = 3, .layer = 2, .pass = 1},
                                      {.purpose = "noise", .step = 3, .layer = 2, .site = "s"},
                                      {.purpose = "noise", .step = 2, .layer = 3}};
  for (const RandomKey& other : others) EXPECT_LT((first == a.uniform({100}, other)).sum().item<int64_t>(), 3);
}

TEST(Streams, AnElementDoesNotDependOnHowManyAreDrawn) {
  const Streams s(9);
  const RandomKey key{.purpose = "p"};
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    EXPECT_TRUE(s.uniform({10001}, key, type).slice(0, 0, 7).equal(s.uniform({7}, key, type)));
    EXPECT_TRUE(s.normal({10001}, key, type).slice(0, 0, 7).equal(s.normal({7}, key, type)));
  }
  EXPECT_TRUE(s.integers(17, {1001}, key).slice(0, 0, 3).equal(s.integers(17, {3}, key)));
  EXPECT_TRUE(s.uniform({4, 5}, key).view({-1}).equal(s.uniform({20}, key)));
}

TEST(Streams, DrawsDoNotDependOnThreads) {
  const Streams s(9);
  const RandomKey key{.purpose = "p"};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = s.normal({100003}, key), order = s.permutation(50001, key);
  at::set_num_threads(4);
  const at::Tensor four = s.normal({100003}, key), same_order = s.permutation(50001, key);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.equal(four));
  EXPECT_TRUE(order.equal(same_order));
}

TEST(Streams, MomentsAreThoseOfTheDistributions) {
  // n = 2^20: the standard error of a mean is sigma / 1024; five of them are allowed.
  const int64_t n = int64_t{1} << 20;
  const Streams s(5);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor u = s.uniform({n}, {.purpose = "u"}, type).to(at::kDouble);
    EXPECT_NEAR(u.mean().item<double>(), 0.5, 5 * std::sqrt(1.0 / 12) / 1024);
    EXPECT_NEAR(u.var().item<double>(), 1.0 / 12, 5 * std::sqrt(1.0 / 180) / 1024);
    EXPECT_GE(u.min().item<double>(), 0);
    EXPECT_LT(u.max().item<double>(), 1);
    const at::Tensor z = s.normal({n}, {.purpose = "z"}, type).to(at::kDouble);
    EXPECT_NEAR(z.mean().item<double>(), 0, 5.0 / 1024);
    EXPECT_NEAR(z.var().item<double>(), 1, 5 * std::sqrt(2.0) / 1024);
    EXPECT_NEAR(z.pow(3).mean().item<double>(), 0, 5 * std::sqrt(15.0) / 1024);
    EXPECT_NEAR(z.pow(4).mean().item<double>(), 3, 5 * std::sqrt(96.0) / 1024);
    // Neighbours (Box-Muller pairs) are uncorrelated.
    EXPECT_NEAR((z.slice(0, 0, n - 1) * z.slice(0, 1, n)).mean().item<double>(), 0, 5.0 / 1024);
  }
}

TEST(Streams, NarrowTypesNeverRoundUpToOne) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat})
    EXPECT_LT(Streams(1).uniform({int64_t{1} << 18}, {.purpose = "u"}, type).max().item<float>(), 1.0f);
}

TEST(Streams, IntegersAreEven) {
  const int64_t n = 7, draws = 70000;
  const at::Tensor counts = at::bincount(Streams(3).integers(n, {draws}, {.purpose = "i"}), {}, n);
  ASSERT_EQ(counts.numel(), n);
  EXPECT_LT(((counts - draws / n).to(at::kDouble).pow(2) / (draws / n)).sum().item<double>(),
            27.9);  // chi-square, 6 degrees, p = 1e-4
  const at::Tensor large = Streams(3).integers((int64_t{1} << 32) - 1, {10000}, {.purpose = "i"});
  EXPECT_GE(large.min().item<int64_t>(), 0);
  EXPECT_GT(large.max().item<int64_t>(), int64_t{1} << 31);
  EXPECT_EQ(Streams(3).integers(1, {5}, {.purpose = "i"}).max().item<int64_t>(), 0);
  for (const int64_t bad : {int64_t{0}, int64_t{-1}, int64_t{1} << 32})
    EXPECT_EQ(expect_error([&] { (void)Streams(3).integers(bad, {1}, {.purpose = "i"}); }).code(), "random.range");
}

TEST(Streams, PermutationsHoldEachThingOnceAndAreEven) {
  const Streams s(3);
  const at::Tensor p = s.permutation(1000, {.purpose = "p"});
  EXPECT_TRUE(std::get<0>(p.sort()).equal(at::arange(1000)));
  EXPECT_FALSE(p.equal(at::arange(1000)));
  EXPECT_EQ(s.permutation(0, {.purpose = "p"}).numel(), 0);
  EXPECT_EQ(s.permutation(1, {.purpose = "p"}).item<int64_t>(), 0);
  // All 24 orders of 4 things about equally often.
  std::map<std::vector<int64_t>, int> seen;
  for (int64_t step = 0; step < 2400; ++step) {
    const at::Tensor q = s.permutation(4, {.purpose = "p", .step = step});
    seen[{q.data_ptr<int64_t>(), q.data_ptr<int64_t>() + 4}]++;
  }
  EXPECT_EQ(seen.size(), 24u);
  double chi = 0;
  for (const auto& [order, count] : seen) chi += (count - 100.0) * (count - 100.0) / 100;
  EXPECT_LT(chi, 57);  // 23 degrees, p = 1e-4
  EXPECT_EQ(expect_error([&] { (void)s.permutation(-1, {.purpose = "p"}); }).code(), "random.range");
}

TEST(Streams, EmptyDrawsAreEmpty) {
  EXPECT_EQ(Streams(1).uniform({0, 4}, {.purpose = "u"}).sizes(), (at::IntArrayRef{0, 4}));
  EXPECT_EQ(Streams(1).normal({0}, {.purpose = "u"}).numel(), 0);
}

TEST(Streams, WordsDiffer) {
  std::set<uint64_t> words;
  for (int64_t step = 0; step < 1000; ++step) words.insert(Streams(1).word({.purpose = "w", .step = step}));
  EXPECT_EQ(words.size(), 1000u);
}

}  // namespace
}  // namespace switchyard
