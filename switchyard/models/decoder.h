// The transformer that a recipe describes: embedding, blocks, final norm, head. Causal by default; with causal = false the same
// stack is an encoder (masked language modelling, classes), over tokens or over patches of images; with an encoder beside it, it is
// a decoder that looks at what that read.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/blocks/memory.h"
#include "switchyard/contract/part.h"
#include "switchyard/models/model_options.h"
#include "switchyard/models/stack.h"

namespace switchyard {

/// The row fact that says a token's type, 0 where it is absent.
inline constexpr const char* kTokenType = "token_type";

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

  /// ids: [rows] int64 → [rows, D] after the final norm; a model of images takes them [B, channels, image, image] for B segments of
  /// context_rows() rows. `hidden`, when given, receives what enters the first block and every block's output. A model with an encoder
  /// needs its rows among the facts (set_memory), unless context.state holds what they gave. Throws model.rows, model.token_id, ....
  at::Tensor forward(const at::Tensor& ids, const Context& context, std::vector<at::Tensor>* hidden = nullptr) const;
  /// ids: [rows] of the sequences that the encoder reads → their rows; throws model.encoder when there is none.
  Memory encode(const at::Tensor& ids, const Context& context, std::vector<at::Tensor>* hidden = nullptr) const;
  /// [rows, D] → [rows, V] float; [rows, classes] where the head names classes.
  at::Tensor logits(const at::Tensor& hidden, const Context& context) const;
  bool encodes() const { return encoder_.has_value(); }
  /// Rows of one image.
  int64_t context_rows() const { return options_.patches ? options_.patches->count() + 1 : 0; }

 private:
  void declare();
  at::Tensor embed(const at::Tensor& ids, const Context& context) const;
  at::Tensor embed_types(const at::Tensor& ids, const Context& context) const;
  at::Tensor embed_patches(const at::Tensor& images, const Context& context) const;

  ModelOptions options_;
  Schema schema_;
  Parameter embedding_, token_types_, patch_weight_, patch_bias_, first_row_;
  Parameter transform_, transform_bias_, head_, head_bias_;
  std::optional<Stack> encoder_, stack_;
  PartPtr head_norm_;
  std::vector<PlacedRouting> routings_;
};

}  // namespace switchyard
