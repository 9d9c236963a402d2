// The language-modelling objective: -log p(next token), over the rows that have one.
#include "switchyard/base/registry.h"
#include "switchyard/train/cross_entropy.h"
#include "switchyard/train/objective.h"

namespace switchyard {
namespace {

class NextToken : public Objective {
 public:
  const char* name() const override { return "cross-entropy"; }
  LossSum loss(Runner& runner) const override {
    const at::Tensor hidden = runner.hidden();
    CrossEntropy result = cross_entropy(runner.model(), hidden, runner.batch().targets, runner.context());
    return {std::move(result.sum), std::move(result.per_row)};
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(next_token) {
  using namespace switchyard;
  registry.add<Objective, NextToken, NoOptions>(
      {.slug = "next-token", .name = "Next-token prediction", .paper = "language modelling", .year = 2003,
       .section = "beyond", .room = "train", .coupling = "none", .line = "cross-entropy of the next token of packed documents",
       .recipe = "recipes/quickstart.yaml"});
}
