// A GGUF file seen as the folder that it was converted from: its metadata as a config.json, its tensors under the hub's names and
// in the hub's shapes. So whatever loads a published family loads its GGUF too, and nothing else knows the container.
//
// What the container changes, and this undoes, is in architecture.h. Renormalisation of expert weights is implied by the architecture's
// name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/formats/gguf.h"

namespace switchyard {

struct HubView {
  Node config;                              ///< as config.json would read, marks naming the GGUF file
  std::unique_ptr<WeightSource> weights;    ///< packed experts stay packed, one expert a tensor
};

/// Throws model.gguf for an architecture that is not read, formats.gguf.missing_key and .key_type for metadata that it needs.
/// A tensor that no rule knows keeps its own name, so that a loader refuses it by name.
HubView hub_view(std::shared_ptr<const Gguf> file);
/// The same of metadata and tensors that are in no file yet; `metadata` is not kept.
HubView hub_view(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> tensors);

/// Values of general.architecture that are read.
std::vector<std::string> gguf_architectures();

}  // namespace switchyard
