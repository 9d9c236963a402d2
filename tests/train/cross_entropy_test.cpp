#include "switchyard/base/differentiable.h"
#include "switchyard/train/cross_entropy.h"

#include <ATen/ATen.h>

#include "tests/train/train_support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::make_decoder;
using testing::Pass;
using testing::randn;

const char* kTied = "{vocabulary: 13, width: 6, layers: 0, context: 64, attention: {type: gqa, heads: 1}}";
const char* kUntied = "{vocabulary: 13, width: 6, layers: 0, context: 64, tied_embeddings: false, attention: {type: gqa, heads: 1}}";

at::Tensor some_targets(int64_t rows) {
  at::Tensor targets = testing::some_ids(rows, 13, 4);
  if (rows > 3) targets[2] = -1;
  return targets;
}

at::Tensor plain(const Decoder& model, const at::Tensor& hidden, const at::Tensor& targets, const Context& context) {
  return at::cross_entropy_loss(model.logits(hidden, context), targets, {}, at::Reduction::Sum, -1);
}

TEST(CrossEntropy, ChunksEqualTheWholeWithGradients) {
  for (const char* yaml : {kTied, kUntied}) {
    const auto model = make_decoder(yaml);
    Pass pass(11);
    const at::Tensor targets = some_targets(11);
    at::Tensor hidden = randn({11, 6}, 8).requires_grad_();
    std::vector<at::Tensor> leaves{hidden};
    for (const Parameter& p : model->schema().all()) leaves.push_back(p.tensor());
    const at::Tensor expected = plain(*model, hidden, targets, pass.context);
    const auto wanted = gradients({expected * 3}, leaves, {});
    for (int64_t chunk : {1, 3, 11, 100}) {
      const CrossEntropy result = cross_entropy(*model, hidden, targets, pass.context, chunk);
      EXPECT_LT(difference(result.sum, expected), 1e-10);
      EXPECT_LT(difference(result.per_row.sum(), expected), 1e-10);
      EXPECT_EQ(result.per_row[2].item<double>(), 0);
      const auto found = gradients({result.sum * 3}, leaves, {});
      for (size_t i = 0; i < leaves.size(); ++i) {
        ASSERT_EQ(found[i].defined(), wanted[i].defined()) << i;
        if (found[i].defined()) { EXPECT_LT(difference(found[i], wanted[i]), 1e-10) << i; }
      }
      const at::NoGradGuard guard;
      EXPECT_LT(difference(cross_entropy(*model, hidden, targets, pass.context, chunk).sum, expected), 1e-10);
    }
  }
}

TEST(CrossEntropy, FiniteDifferences) {
  const auto model = make_decoder(kTied);
  Pass pass(5);
  const at::Tensor targets = some_targets(5);
  at::Tensor hidden = randn({5, 6}, 9).requires_grad_();
  testing::expect_gradients([&] { return cross_entropy(*model, hidden, targets, pass.context, 2).sum; },
                            {hidden, model->schema().all()[0].tensor()});
}

TEST(CrossEntropy, NoRowAndNoTarget) {
  const auto model = make_decoder(kTied);
  Pass none(0), three(3);
  EXPECT_EQ(cross_entropy(*model, at::zeros({0, 6}, at::kDouble), at::zeros({0}, at::kLong), none.context).sum.item<double>(), 0);
  at::Tensor hidden = randn({3, 6}, 9).requires_grad_();
  const CrossEntropy result = cross_entropy(*model, hidden, at::full({3}, -1, at::kLong), three.context);
  EXPECT_EQ(result.sum.item<double>(), 0);
  result.sum.backward();
  EXPECT_EQ(hidden.grad().abs().sum().item<double>(), 0);
}

TEST(CrossEntropy, RefusesTargetsOutsideTheVocabularyAndSecondDerivatives) {
  const auto model = make_decoder(kTied);
  Pass pass(2);
  at::Tensor hidden = randn({2, 6}, 9).requires_grad_();
  const Error error = expect_error([&] { cross_entropy(*model, hidden, at::tensor({1, 13}, at::kLong), pass.context); });
  EXPECT_EQ(error.code(), "train.targets");
  EXPECT_NE(error.message().find("token 13"), std::string::npos) << error.message();
  EXPECT_EQ(expect_error([&] { cross_entropy(*model, hidden, at::tensor({1}, at::kLong), pass.context); }).code(), "train.targets");
  const CrossEntropy result = cross_entropy(*model, hidden, at::tensor({1, 2}, at::kLong), pass.context);
  EXPECT_EQ(expect_error([&] { gradients({result.sum}, {hidden}, {}, true, true); }).code(), "train.second_order");
}

TEST(Catalogue, next_token) {
  // A head of zeros gives every token the probability 1/V.
  const auto model = make_decoder(kUntied);
  for (const Parameter& p : model->schema().all())
    if (p.spec().role == Role::head) {
      const at::NoGradGuard guard;
      p.tensor().zero_();
    }
  Pass pass(4);
  Batch batch{.ids = at::tensor({1, 2, 3, 4}, at::kLong), .targets = at::tensor({2, 3, 4, -1}, at::kLong), .facts = pass.facts, .predicted = 3};
  Runner runner(*model, batch, pass.context);
  const auto objective = Choice<Objective>("next-token").make();
  const LossSum loss = objective->loss(runner);
  EXPECT_NEAR(loss.sum.item<double>(), 3 * std::log(13.0), 1e-12);
  EXPECT_NEAR(loss.per_row[1].item<double>(), std::log(13.0), 1e-12);
  EXPECT_EQ(loss.per_row[3].item<double>(), 0);
}

}  // namespace
}  // namespace switchyard
