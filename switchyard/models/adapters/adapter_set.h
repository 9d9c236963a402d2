// Adapters beside a loaded model: several are held at once, and each pass uses one, none, the sum of several, or a weight for
// every row and map (X-LoRA). The model's own parameters are untouched until `merge`. The arithmetic and its order are those of
// the peft library: what it computes is what comes out here.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/contract/adaptation.h"
#include "switchyard/formats/peft/adapter_file.h"
#include "switchyard/models/adapters/module_table.h"

namespace switchyard {

/// An adapter in use. weight multiplies the adapter's own scale (LoRA only).
struct ActiveAdapter {
  std::string name;
  double weight = 1;
};

/// The row fact that holds X-LoRA's scalings: [rows, maps, adapters].
inline constexpr const char* kScalings = "adapter_scalings";

class AdapterSet {
 public:
  /// Over a bound model; the set keeps handles to its parameters.
  explicit AdapterSet(const LoadedModel& model);
  ~AdapterSet();
  AdapterSet(const AdapterSet&) = delete;
  AdapterSet& operator=(const AdapterSet&) = delete;

  /// Adds an adapter. As in peft, biases and base embeddings that come with it (bias: all, lora_only) and what PiSSA and OLoRA took
  /// out of the base stand for the base's own in every pass of this set from then on. Throws adapters.name (twice the same),
  /// adapters.module (a module that the model lacks), adapters.shape, adapters.rank, adapters.kind (X-LoRA: infer/adapted_model.h),
  /// adapters.layout; formats.peft.pattern.
  void load(const std::string& name, const peft::AdapterFile& file);
  std::vector<std::string> names() const;
  bool has(const std::string& name) const;

  /// What a pass uses, in this order; none = the base. The result keeps what it needs alive. Throws adapters.unknown,
  /// adapters.kinds ((IA)^3 beside LoRA), adapters.weight, adapters.saved_twice.
  std::shared_ptr<const Adaptation> use(const std::vector<ActiveAdapter>& active) const;

  /// The maps that an X-LoRA of all loaded adapters weighs: those that their configs target, in the order of the model.
  std::vector<std::string> weighed_maps() const;
  /// All adapters, each map's by the row fact kScalings (one entry a map of weighed_maps, one an adapter as loaded), times `weight`.
  std::shared_ptr<const Adaptation> use_scalings(double weight) const;

  /// Puts adapters into the model's parameters. Throws what `use` does, and adapters.merged (some are in already),
  /// adapters.merge_tied, adapters.merge_bias, adapters.not_finite.
  void merge(const std::vector<ActiveAdapter>& active);
  /// The parameters that were there before merge, bit for bit.
  void unmerge();
  bool merged() const;

 private:
  struct Data;
  std::shared_ptr<Data> data_;
};

}  // namespace switchyard
