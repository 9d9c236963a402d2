// Two models on the same tokens: how far logits and hidden states are apart, where they part first, and whether the same experts were
// chosen. Both sides are named tensors (infer/named_outputs.h), so either may be a recording.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/formats/safetensors.h"

namespace switchyard {

/// Where the largest difference of logits is.
struct LogitPlace {
  int64_t sequence = 0, position = 0, token = 0;
  double reference = 0, other = 0;
};

struct Comparison {
  int64_t positions = 0;              ///< that were compared
  double largest = 0, mean = 0;       ///< |difference| of logits; largest is infinite where one side is not finite
  LogitPlace at;
  double divergence = 0, largest_divergence = 0;  ///< KL(reference | other) in nats, mean and largest over positions
  double same_top = 0;                ///< share of positions with the same most probable token
  /// Hidden states in the order of the layers, and routing by layer: as far as both sides have them in the same shape.
  struct Hidden { std::string layer; double largest = 0, scale = 0; };  ///< scale: largest |value| of the reference
  std::vector<Hidden> hidden;
  struct Routing { std::string layer; int64_t rows = 0, same = 0; };    ///< rows for which the same experts were chosen
  std::vector<Routing> routing;

  bool equal(double tolerance) const { return positions > 0 && largest <= tolerance; }
  /// The first layer whose hidden state is further apart than tolerance · max(1, scale).
  std::optional<std::string> first_different(double tolerance) const;
};

class Comparer {
 public:
  /// The same pass on both sides: logits [B, S, V], or [B, classes] of models that name classes, and hidden_states.{i} [B, S, D] and
  /// topk_ids.{layer} [B·S, k] where there are any. mask: [B, S], undefined = all ones; what is 0 is not compared, but classes always
  /// are. A recording may hold hidden states of row 0 alone [S, D], and logits_row1_unpadded [n, V], which then stand for those of
  /// row 1. Throws evaluate.shape when logits or the mask do not fit.
  void add(const NamedTensors& reference, const NamedTensors& other, const at::Tensor& mask = {});
  Comparison result() const;

 private:
  void add_logits(const at::Tensor& reference, const at::Tensor& other, const at::Tensor& places, int64_t length);
  Comparison sum_;
  int64_t sequences_ = 0;
  double elements_ = 0;
  std::map<std::string, size_t> hidden_at_, routing_at_;
};

}  // namespace switchyard
