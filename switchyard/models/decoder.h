// The transformer that a recipe describes: embedding, blocks, final norm, head. Causal by default;
// with causal = false the same stack is an encoder for masked language modelling.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "switchyard/blocks/block.h"
#include "switchyard/contract/part.h"
#include "switchyard/layer/moe_layer.h"
#include "switchyard/models/model_options.h"

namespace switchyard {

/// A routing decision inside a model, by its place.
struct PlacedRouting {
  int64_t layer = 0;
  std::shared_ptr<RoutingStation> station;  ///< station->site() equals Record::place.site
};

class Decoder {
 public:
  /// Throws model.* when the options do not fit together (vocabulary 0, heads, a site that no block has).
  explicit Decoder(ModelOptions options);

  const ModelOptions& options() const { return options_; }
  /// Everything declared; bind by initialise(), a checkpoint, or not at all.
  const Schema& schema() const { return schema_; }
  /// Every place that routes, found by walking the parts (HasRouting), in the order of the layers.
  const std::vector<PlacedRouting>& routings() const { return routings_; }
  std::vector<StateSpec> states() const;
  Reach reach(const Overrides& overrides, Phase phase) const;
  /// Parameters that one row uses: everything but experts that are not chosen (k experts a mixture).
  int64_t active_parameters() const;

  /// ids: [rows] int64 → [rows, D] after the final norm. `hidden`, when given, receives the embedding
  /// and every block's output.
  at::Tensor forward(const at::Tensor& ids, const Context& context, std::vector<at::Tensor>* hidden = nullptr) const;
  /// [rows, D] → [rows, V] float.
  at::Tensor logits(const at::Tensor& hidden, const Context& context) const;

 private:
  class Builder;
  void declare();
  void find_routings();

  ModelOptions options_;
  Schema schema_;
  Parameter embedding_, position_embedding_, head_, head_bias_;
  PartPtr final_norm_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::vector<PlacedRouting> routings_;
};

}  // namespace switchyard
