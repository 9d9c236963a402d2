// One forward of a padded batch to named tensors, for verification: logits, hidden states, routing decisions.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/formats/safetensors.h"
#include "switchyard/infer/language_model.h"

namespace switchyard {

struct NamedOutputsOptions {
  bool hidden = false;   ///< hidden_states.{i}: 0 = embedding, i = output of block i, the last one after the final norm
  bool routing = false;  ///< router_logits.{layer}, topk_ids.{layer}, topk_weights.{layer}
  bool scalings = false; ///< scalings, of an X-LoRA
  std::vector<std::pair<std::string, at::Tensor>> facts;  ///< facts of the rows of the batch, [B] each
};

/// ids: [B, S] integers. mask: [B, S] of 0 and 1, or undefined; the ones of a row lie together (padding left or right).
/// Padding is never computed. Gives, with zeros where the mask is 0:
///   logits [B, S, V] float32; hidden_states.{i} [B, S, D];
///   router_logits.{layer} [B·S, E] before any softmax, sigmoid or bias;
///   topk_ids.{layer} [B·S, k] int64 and topk_weights.{layer} [B·S, k]: by falling weight, as multiplied in; id -1 and weight 0
///   for padding, dropped choices, and places beyond a token's number of experts.
///   scalings [B, S, maps, adapters].
/// A layer with several routings adds the site to the name: topk_ids.2.attention.query.
/// Throws infer.input, infer.mask, infer.context, adapters.kind (scalings of what is no X-LoRA).
NamedTensors named_outputs(const LanguageModel& model, const at::Tensor& ids, const at::Tensor& mask,
                           const NamedOutputsOptions& options = {});

}  // namespace switchyard
