// A stack of blocks as a model's options describe it: positions, blocks with what sits at their sites, the last norm. A decoder is one;
// an encoder before it is another.
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

class Stack {
 public:
  /// What a stack is built for. cross: the sub-layer between attention and feed-forward, or none.
  struct Size { int64_t width = 0, context = 0; };
  /// prefix: of the names of its blocks ("encoder." or nothing). Throws model.* when the options do not fit together (a site that
  /// no block has, a placement that meets no layer).
  Stack(const StackOptions& options, const Choice<Body>& cross, const std::string& prefix, Size size);

  /// position_embedding, relative_bias, embedding_norm, layers.{i}, norm: as the options have them.
  void declare(const Schema& schema);
  /// x: [rows, D] embedded rows → [rows, D] after the last norm. `hidden`, when given, receives what enters the first block and every
  /// block's output.
  at::Tensor forward(at::Tensor x, const Context& context, std::vector<at::Tensor>* hidden = nullptr) const;
  std::vector<StateSpec> states() const;
  Reach reach(const Overrides& overrides, Phase phase) const;
  /// Adds every place that routes, found by walking the parts (HasRouting), in the order of the layers.
  void find_routings(std::vector<PlacedRouting>& routings) const;

 private:
  class Builder;
  at::Tensor with_positions(at::Tensor x, const Context& context) const;

  bool causal_;
  Positions positions_;
  int64_t position_offset_;
  double init_deviation_;
  Size size_;
  Parameter position_embedding_;
  std::shared_ptr<RelativeBias> relative_;
  PartPtr embedding_norm_, final_norm_;
  std::vector<std::shared_ptr<Block>> blocks_;
};

}  // namespace switchyard
