// The sparse gate (survey eq. 3-5): the k best logits, softmaxed, engage their experts.
#include <ATen/TensorOperators.h>

#include "switchyard/base/error.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// What the softmax behind the weights runs over.
enum class SoftmaxOver { kept, all };

struct SparseTopKOptions : SelectOptions {
  int64_t k = 2;
  SoftmaxOver softmax = SoftmaxOver::kept;
  int64_t groups = 1, chosen_groups = 1, group_best = 1;
  bool selection_bias = false;
  static void describe(Fields<SparseTopKOptions>& f) {
    f.title("Sparse top-k gate", "The k best logits of a token engage their experts.");
    f("k", &SparseTopKOptions::k, "experts that a token engages").range(1, 1 << 20);
    f("softmax", &SparseTopKOptions::softmax,
      "over the kept logits (weights sum to 1) or over all (raw probabilities; see combine)").choices({"kept", "all"});
    f("groups", &SparseTopKOptions::groups, "equal groups (devices) of consecutive experts").range(1, 1 << 20);
    f("chosen_groups", &SparseTopKOptions::chosen_groups, "groups that a token may reach").range(1, 1 << 20);
    f("group_best", &SparseTopKOptions::group_best, "a group's score is the sum of so many of its best").range(1, 1 << 20);
    f("selection_bias", &SparseTopKOptions::selection_bias, "a bias joins the probabilities for selection only; a controller "
      "or nobody moves it (ERNIE 4.5)");
    describe_fields(f);
  }
};

class SparseTopK : public Router {
 public:
  explicit SparseTopK(SparseTopKOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    check_k(options_.k, size.experts, "sparse-topk");
    const auto& o = options_;
    check(size.experts % o.groups == 0 && o.chosen_groups <= o.groups && o.group_best <= size.experts / o.groups &&
              o.k <= o.chosen_groups * (size.experts / o.groups),
          "routing.group_range", "sparse-topk: {} experts in {} groups, of which a token reaches {} scored by their {} best: "
          "groups must divide the experts, and the reached ones must hold k = {}", size.experts, o.groups, o.chosen_groups,
          o.group_best, o.k);
    scorer_->declare(schema, size);
    if (o.selection_bias) bias_ = schema.buffer("bias", {size.experts}, Init::zeros(), at::kFloat);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Gate gate = scorer_->score(input, context);
    const at::Tensor logits = gate.scores;
    if (bias_) gate.scores = mask_experts(gate.probabilities + context[bias_].to(gate.probabilities.options()), context);
    std::optional<kernels::GroupLimit> limit;
    if (options_.groups > 1) limit = {options_.groups, options_.chosen_groups, options_.group_best};
    const at::Tensor ids = choose(gate.scores, options_.k, context, limit);
    const at::Tensor weights = options_.softmax == SoftmaxOver::kept ? kept_softmax(logits, ids) : gate.probabilities.gather(1, ids);
    return selection_of(ids, weights, std::move(gate), options_.run);
  }

  double engaged(int64_t) const override { return static_cast<double>(options_.k); }

 private:
  SparseTopKOptions options_;
  std::shared_ptr<Scorer> scorer_;
  Parameter bias_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(sparse_topk) {
  using namespace switchyard;
  registry.add<Router, SparseTopK, SparseTopKOptions>(
      {.slug = "sparse-topk", .name = "Sparse top-k gate", .paper = "Shazeer et al., Outrageously large neural networks",
       .year = 2017, .section = "2.2", .room = "routing/token_choice", .coupling = "none",
       .line = "the k best logits, softmaxed, engage their experts", .recipe = "recipes/methods/sparse-topk.yaml"});
}
