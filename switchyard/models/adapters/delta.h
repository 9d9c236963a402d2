// One module's adapter on one of our tensors: its factors, brought from the layout of published files to ours.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/models/families/name_map.h"

namespace switchyard {

/// What stands beside one module, in the layout of its published tensor: W += scaling · b a, or W *= scale.
struct ModuleDelta {
  enum class Kind { lora, dora, ia3 };
  size_t adapter = 0;           ///< index in the set
  std::string module;
  Kind kind = Kind::lora;
  bool embedding = false;
  bool in_out = false;          ///< the published tensor lies [.., in, out]
  double scaling = 1;
  at::Tensor a, b;              ///< [r, in], [out, r]; of experts [E, r, in], [E, out, r]; of an embedding table out = V, in = D
  at::Tensor b_bias;            ///< [out]
  bool into_bias = false;       ///< the base has a bias that b_bias goes into
  at::Tensor magnitude;         ///< DoRA: [out]; of an embedding [D]
  at::Tensor scale;             ///< (IA)^3: [out, 1] or [1, in]
  std::vector<int64_t> shape;   ///< of the published tensor
  int64_t map = -1;             ///< place among the maps that an X-LoRA weighs
};

/// A delta on one of our tensors; views as in NameMap.
struct PlacedDelta {
  std::shared_ptr<const ModuleDelta> delta;
  View ours_view, theirs_view;
  bool bias = false;  ///< on the bias beside the weight: + scaling · b_bias (LoRA), or times the output's scale ((IA)^3)
};

/// A delta's factors as they act on (a view of) our tensor.
struct Factors {
  at::Tensor a, b, b_bias, magnitude;  ///< [r, in], [out, r], [out], [out]; stacked: [E, r, in], [E, out, r]
  at::Tensor out_scale, in_scale;      ///< (IA)^3: [out], [in]
};

/// Unset when the views cannot be carried by factors (then the delta is added as a whole matrix).
std::optional<Factors> factors_of(const PlacedDelta& placed);
/// What is added (LoRA, without the scaling) or multiplied ((IA)^3) in full, as theirs_view makes it.
at::Tensor dense(const PlacedDelta& placed);

}  // namespace switchyard
