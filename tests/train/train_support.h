// What tests of training share: batches of a sequence that can be learnt, and trainers over small decoders.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "switchyard/train/trainer.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {

constexpr int64_t kVocabulary = 23;

/// Batches of sequences of 8 tokens in two documents of 3 and 5; within a document x' = 3x + 1 mod V. Each batch
/// follows from its number alone.
class Source {
 public:
  Batch operator()(int64_t sequences) {
    const at::Tensor starts = Streams(17).integers(kVocabulary, {sequences * 2}, {.purpose = "test", .step = drawn_++});
    std::vector<int64_t> ids, targets, domains;
    Segments segments;
    for (int64_t s = 0; s < sequences * 2; ++s) {
      int64_t x = starts[s].item<int64_t>();
      const int64_t length = s % 2 ? 5 : 3;
      for (int64_t t = 0; t < length; ++t) {
        ids.push_back(x);
        x = (3 * x + 1) % kVocabulary;
        targets.push_back(t + 1 < length ? x : -1);
      }
      segments.begin.push_back(segments.begin.back() + length);
      domains.push_back(s % 2);
    }
    Batch batch;
    batch.ids = at::tensor(ids, at::kLong);
    batch.targets = at::tensor(targets, at::kLong);
    batch.facts = Facts(segments);
    batch.facts.set_segment("domain", at::tensor(domains, at::kLong));
    batch.predicted = batch.targets.ge(0).sum().item<int64_t>();
    return batch;
  }

 private:
  int64_t drawn_ = 0;
};

/// Two layers, the second a mixture with the given losses.
inline std::string small_moe(const std::string& losses = "[lb-loss, router-z]", const std::string& more = "") {
  return "{vocabulary: 23, width: 12, layers: 2, context: 8, attention: {type: gqa, heads: 2}, "
         "feed_forward: {type: feed-forward, hidden: 16}, mixtures: [{experts: 4, router: {type: sparse-topk, k: 2}, "
         "expert: {type: swiglu, hidden: 10}, layers: {every: 1}, losses: " + losses + more + "}]}";
}

inline std::unique_ptr<Trainer> make_trainer(const std::string& model, const std::string& train,
                                             at::ScalarType type = at::kFloat, double spread = 10) {
  const auto options = read_options<TrainOptions>(parse_yaml(train, "test"));
  return std::make_unique<Trainer>(options, make_decoder(model, type, spread), Source(), 5);
}

inline std::vector<at::Tensor> gradients(Trainer& trainer) {
  std::vector<at::Tensor> all;
  for (const Parameter& parameter : trainer.optimiser().parameters()) {
    const at::Tensor& grad = parameter.tensor().grad();
    all.push_back(grad.defined() ? grad.clone() : at::zeros_like(parameter.tensor()));
  }
  return all;
}

}  // namespace switchyard::testing
