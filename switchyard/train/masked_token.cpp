// Masked language modelling for encoders (Devlin et al. 2019, section 3.1): some tokens are chosen; most of these are hidden,
// some replaced, some left; the model says what stood there.
#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/train/cross_entropy.h"
#include "switchyard/train/objective.h"

namespace switchyard {
namespace {

struct MaskedTokenOptions {
  double ratio = 0.15, hidden = 0.8, replaced = 0.1;
  int64_t mask_token = 0;

  static void describe(Fields<MaskedTokenOptions>& f) {
    f("ratio", &MaskedTokenOptions::ratio, "share of the tokens that are predicted").range(0, 1);
    f("hidden", &MaskedTokenOptions::hidden, "share of these that the mask token hides").range(0, 1);
    f("replaced", &MaskedTokenOptions::replaced, "share of these that another token replaces; the rest stays").range(0, 1);
    f("mask_token", &MaskedTokenOptions::mask_token, "the token that hides; tokenizers trained here have 0, the unknown token, free for it")
        .range(0);
  }
};

class MaskedToken : public Objective {
 public:
  explicit MaskedToken(MaskedTokenOptions options) : options_(options) {
    check(options_.hidden + options_.replaced <= 1, "train.objective", "masked-lm: hidden + replaced is {}, more than 1",
          options_.hidden + options_.replaced);
  }
  const char* name() const override { return "masked-lm"; }
  bool sees_ahead() const override { return true; }

  Batch prepare(Batch batch, const Decoder& model, const Context& context) const override {
    const int64_t vocabulary = model.options().vocabulary;
    check(options_.mask_token < vocabulary, "train.objective", "masked-lm: mask_token is {}, but the model has {} tokens",
          options_.mask_token, vocabulary);
    const auto key = [&](std::string_view purpose) { return RandomKey{.purpose = purpose, .step = context.step, .micro = context.micro}; };
    const at::Tensor chosen = context.random.uniform(batch.ids.sizes(), key("masked-lm.chosen")).lt(options_.ratio);
    const at::Tensor kind = context.random.uniform(batch.ids.sizes(), key("masked-lm.kind"));
    const at::Tensor other = context.random.integers(vocabulary, batch.ids.sizes(), key("masked-lm.other"));
    batch.targets = batch.ids.masked_fill(chosen.logical_not(), -1);
    const at::Tensor hide = chosen.logical_and(kind.lt(options_.hidden));
    const at::Tensor replace = chosen.logical_and(kind.ge(options_.hidden)).logical_and(kind.lt(options_.hidden + options_.replaced));
    batch.ids = at::where(replace, other, batch.ids.masked_fill(hide, options_.mask_token));
    batch.predicted = chosen.sum().item<int64_t>();
    return batch;
  }

  LossSum loss(Runner& runner) const override {
    const at::Tensor hidden = runner.hidden();
    CrossEntropy result = cross_entropy(runner.model(), hidden, runner.batch().targets, runner.context());
    return {std::move(result.sum), std::move(result.per_row)};
  }

 private:
  MaskedTokenOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(masked_token) {
  using namespace switchyard;
  registry.add<Objective, MaskedToken, MaskedTokenOptions>(
      {.slug = "masked-lm", .name = "Masked language modelling", .paper = "Devlin et al., BERT", .year = 2019,
       .section = "beyond", .room = "train", .coupling = "none",
       .line = "an encoder names the tokens that were hidden from it", .recipe = "recipes/methods/masked-lm.yaml"});
}
