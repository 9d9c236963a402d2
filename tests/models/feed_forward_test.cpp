// The dense feed-forward network of a block is one expert that every row passes.
#include "tests/models/decoder_support.h"

namespace switchyard {
namespace {

using namespace testing;

TEST(Catalogue, feed_forward_equals_a_mixture_of_one_expert) {
  const std::string base = "{vocabulary: 11, width: 8, layers: 1, context: 16, attention: {type: gqa, heads: 2}, feed_forward: ";
  for (const char* activation : {"relu", "swiglu"}) {
    const auto dense = make_decoder(base + "{type: feed-forward, hidden: 12, activation: " + activation + "}}");
    const auto mixture = make_decoder(base + "none, mixtures: [{at: feed_forward, experts: 1, router: {type: sparse-topk, k: 1}, "
                                      "expert: {type: " + activation + ", hidden: 12}}]}");
    at::NoGradGuard guard;
    int copied = 0;
    for (const Parameter& p : mixture->schema().all()) {
      if (const Parameter same = dense->schema().find(p.name())) p.tensor().copy_(same.tensor());
      for (const char* map : {"up", "gate", "down"})
        if (p.name() == std::string("layers.0.feed_forward.experts.") + map) {
          p.tensor().select(0, 0).copy_(dense->schema().find(std::string("layers.0.feed_forward.") + map + ".weight").tensor());
          ++copied;
        }
    }
    EXPECT_EQ(copied, std::string(activation) == "relu" ? 2 : 3);
    const at::Tensor ids = some_ids(9, 11);
    EXPECT_LT(difference(run_logits(*dense, ids, {4, 5}), run_logits(*mixture, ids, {4, 5})), 1e-9) << activation;
  }
}

}  // namespace
}  // namespace switchyard
