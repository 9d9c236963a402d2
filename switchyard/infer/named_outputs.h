// One forward of a padded batch to named tensors, for verification: logits, hidden states, routing decisions.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/formats/safetensors.h"
#include "switchyard/infer/language_model.h"

namespace switchyard {

struct NamedOutputsOptions {
  bool hidden = false;   ///< hidden_states.{i}: 0 = embedding, i = output of block i, the last one after the final norm (of images
                         ///< before it, as their library has it)
  bool routing = false;  ///< router_logits.{layer}, topk_ids.{layer}, topk_weights.{layer}
  bool scalings = false; ///< scalings, of an X-LoRA
  std::vector<std::pair<std::string, at::Tensor>> facts;  ///< facts of the rows of the batch, [B] each
};

/// What one forward is fed, by the names that files of inputs have. [S] stands for [1, S], [C, H, W] for [1, C, H, W].
struct NamedInputs {
  at::Tensor input_ids;               ///< [B, S] integers
  at::Tensor attention_mask;          ///< [B, S] of 0 and 1, or undefined
  at::Tensor token_type_ids;          ///< [B, S] integers, or undefined (all 0)
  at::Tensor decoder_input_ids;       ///< [B, T] integers: of a model with an encoder
  at::Tensor decoder_attention_mask;  ///< [B, T] of 0 and 1, or undefined
  at::Tensor pixel_values;            ///< [B, C, H, W] float: of a model of images, instead of input_ids
};
/// The ones that a file has; others it holds are passed over.
NamedInputs named_inputs(const WeightSource& file);

/// ids: [B, S] integers. mask: [B, S] of 0 and 1, or undefined; the ones of a row lie together (padding left or right).
/// Padding is never computed. Gives, with zeros where the mask is 0:
///   logits [B, S, V] float32; hidden_states.{i} [B, S, D];
///   router_logits.{layer} [B·S, E] before any softmax, sigmoid or bias;
///   topk_ids.{layer} [B·S, k] int64 and topk_weights.{layer} [B·S, k]: by falling weight, as multiplied in; id -1 for padding, dropped
///   choices, and places beyond a token's number of experts; weight 0 there, but what its router gave it for a dropped only choice.
///   scalings [B, S, maps, adapters].
/// A layer with several routings adds the site to the name: topk_ids.2.attention.query. With an encoder, logits are those of the
/// decoder, and the other names say the side before the number: hidden_states.encoder.0, topk_ids.decoder.1. A model that names
/// classes gives logits [B, classes].
/// Throws infer.input, infer.mask, infer.context, adapters.kind (scalings of what is no X-LoRA).
NamedTensors named_outputs(const LanguageModel& model, const NamedInputs& inputs, const NamedOutputsOptions& options = {});
NamedTensors named_outputs(const LanguageModel& model, const at::Tensor& ids, const at::Tensor& mask,
                           const NamedOutputsOptions& options = {});

}  // namespace switchyard
