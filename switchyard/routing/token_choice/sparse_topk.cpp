// The sparse gate (survey eq. 3-5): the k best logits, softmaxed, engage their experts.
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// What the softmax behind the weights runs over.
enum class SoftmaxOver { kept, all };

struct SparseTopKOptions : SelectOptions {
  int64_t k = 2;
  SoftmaxOver softmax = SoftmaxOver::kept;
  static void describe(Fields<SparseTopKOptions>& f) {
    f.title("Sparse top-k gate", "The k best logits of a token engage their experts.");
    f("k", &SparseTopKOptions::k, "experts that a token engages").range(1, 1 << 20);
    f("softmax", &SparseTopKOptions::softmax,
      "over the kept logits (weights sum to 1) or over all (raw probabilities; see combine)").choices({"kept", "all"});
    describe_fields(f);
  }
};

class SparseTopK : public Router {
 public:
  explicit SparseTopK(SparseTopKOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    check_k(options_.k, size.experts, "sparse-topk");
    scorer_->declare(schema, size);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Gate gate = scorer_->score(input, context);
    const at::Tensor ids = choose(gate.scores, options_.k, context);
    const at::Tensor weights =
        options_.softmax == SoftmaxOver::kept ? kept_softmax(gate.scores, ids) : gate.probabilities.gather(1, ids);
    return selection_of(ids, weights, std::move(gate), options_.run);
  }

  double engaged(int64_t) const override { return static_cast<double>(options_.k); }

 private:
  SparseTopKOptions options_;
  std::shared_ptr<Scorer> scorer_;
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
