#include "switchyard/blocks/scan.h"

#include <ATen/ATen.h>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/random.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;

at::Tensor normal(const char* purpose, const std::vector<int64_t>& shape, at::ScalarType type = at::kFloat) {
  return Streams(7).normal(shape, {.purpose = purpose}, type);
}

/// Operands of B sequences of L rows, H heads of which groups share queries and keys; the last rows of the second are padding.
struct Operands {
  at::Tensor q, k, v, beta, g, state;
  Operands(int64_t length, int64_t groups, at::ScalarType type, double decay) {
    q = normal("q", {2, length, groups, 5}, type);
    k = normal("k", {2, length, groups, 5}, type);
    v = normal("v", {2, length, 4, 3}, type);
    beta = normal("beta", {2, length, 4}, type).sigmoid();
    g = -decay * normal("g", {2, length, 4}, type).sigmoid();
    state = normal("state", {2, 4, 5, 3}, type);
    const int64_t padding = length / 3;
    for (const at::Tensor& t : {k, v, beta, g}) t[1].narrow(0, length - padding, padding).zero_();
  }
};

at::Tensor unit_length(const at::Tensor& x) { return x / (x.square().sum(-1, /*keepdim=*/true) + 1e-6).sqrt(); }

/// The recurrence as it is written, row by row.
Scanned by_rows(Operands o, bool corrected) {
  const int64_t group = 4 / o.q.size(2);
  if (corrected) o.q = unit_length(o.q) / std::sqrt(static_cast<double>(o.q.size(3)));
  if (corrected) o.k = unit_length(o.k);
  at::Tensor s = o.state;
  std::vector<at::Tensor> y;
  for (int64_t t = 0; t < o.v.size(1); ++t) {
    const at::Tensor key = o.k.select(1, t).repeat_interleave(group, 1).unsqueeze(-1);
    s = s * o.g.select(1, t).exp().unsqueeze(-1).unsqueeze(-1);
    at::Tensor value = o.v.select(1, t);
    if (corrected) value = (value - (s * key).sum(-2)) * o.beta.select(1, t).unsqueeze(-1);
    s = s + key * value.unsqueeze(-2);
    y.push_back((s * o.q.select(1, t).repeat_interleave(group, 1).unsqueeze(-1)).sum(-2));
  }
  return {at::stack(y, 1), s};
}

Scanned in_blocks(const Operands& o, bool corrected) {
  return corrected ? delta_scan(o.q, o.k, o.v, o.beta, o.g, o.state) : decayed_scan(o.q, o.k, o.v, o.g, o.state);
}

TEST(Scan, BlocksOfRowsGiveWhatTheRecurrenceGives) {
  // 150 rows are two whole blocks and a part; a decay of 30 a row sums to thousands inside a block. In float32 a kernel runs.
  for (const bool corrected : {false, true})
    for (const int64_t length : {1, 2, 8, 64, 65, 150})
      for (const double decay : {0.05, 3.0, 30.0}) {
        const Operands narrow(length, 2, at::kFloat, decay), exact(length, 2, at::kDouble, decay);
        const Scanned wanted = by_rows(exact, corrected), got = in_blocks(exact, corrected);
        EXPECT_LT(difference(got.rows, wanted.rows), 1e-10) << length << " " << decay;
        EXPECT_LT(difference(got.state, wanted.state), 1e-10) << length << " " << decay;
        const Scanned row_by_row = by_rows(narrow, corrected), fast = in_blocks(narrow, corrected);
        EXPECT_LT(difference(fast.rows, row_by_row.rows), 1e-4) << length << " " << decay;
        EXPECT_LT(difference(fast.state, row_by_row.state), 1e-4) << length << " " << decay;
      }
}

TEST(Scan, BlocksOfRowsHaveTheRecurrencesGradients) {
  for (const bool corrected : {false, true}) {
    Operands o(70, 4, at::kDouble, 0.5);
    std::vector<at::Tensor> inputs{o.q, o.k, o.v, o.g, o.state};
    if (corrected) inputs.push_back(o.beta);
    for (at::Tensor& t : inputs) t.requires_grad_(true);
    const at::Tensor weight = normal("weight", {2, 70, 4, 3}, at::kDouble);
    const auto sum = [&](const Scanned& s) { return (s.rows * weight).sum() + s.state.square().sum(); };
    const std::vector<at::Tensor> wanted = gradients({sum(by_rows(o, corrected))}, inputs), got = gradients({sum(in_blocks(o, corrected))}, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(difference(got[i], wanted[i]), 1e-9) << i;
  }
}

TEST(Scan, RowsInBf16AndWithStridesAreThoseInFloat) {
  for (const bool corrected : {false, true})
    for (const int64_t length : {3, 70}) {
      Operands o(length, 2, at::kFloat, 0.5);
      for (at::Tensor* t : {&o.q, &o.k, &o.v}) *t = t->to(at::kBFloat16);
      Operands wide = o;
      // Rows of the three beside each other; of the last, numbers that do not lie side by side.
      const at::Tensor all = at::cat({o.q.flatten(2), o.k.flatten(2), o.v.flatten(2)}, 2).to(at::kFloat);
      wide.q = all.narrow(2, 0, 10).view({2, length, 2, 5});
      wide.k = all.narrow(2, 10, 10).view({2, length, 2, 5});
      wide.v = o.v.to(at::kFloat).transpose(2, 3).contiguous().transpose(2, 3);
      const Scanned narrow = in_blocks(o, corrected), same = in_blocks(wide, corrected);
      EXPECT_TRUE(narrow.rows.equal(same.rows));
      EXPECT_TRUE(narrow.state.equal(same.state));
    }
}

TEST(Scan, SelectiveStatesInOnePassEqualThoseRowByRow) {
  // 130 channels are two whole tasks of the kernel and a part.
  const at::Tensor u = normal("u", {2, 21, 130}), step = normal("step", {2, 21, 130}).sigmoid(), a = -4 * normal("a", {130, 6}).sigmoid(),
                   in = normal("in", {2, 21, 6}), out = normal("out", {2, 21, 6}), state = normal("state", {2, 130, 6}), before = state.clone();
  const auto doubled = [](const at::Tensor& t) { return t.to(at::kDouble); };
  const Scanned fast = selective_scan(u, step, a, in, out, state),
                plain = selective_scan(doubled(u), doubled(step), doubled(a), doubled(in), doubled(out), doubled(state));
  EXPECT_LT(difference(fast.rows, plain.rows), 1e-4);
  EXPECT_LT(difference(fast.state, plain.state), 1e-4);
  EXPECT_TRUE(state.equal(before));
}

}  // namespace
}  // namespace switchyard
