// A file's tensors under the hub's names and in the hub's shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/kernels/packed_views.h"
#include "switchyard/models/families/derived_weights.h"
#include "switchyard/models/families/gguf/architecture.h"

namespace switchyard::gguf {

class HubTensors : public DerivedWeights {
 public:
  /// config: as it was read from the file's metadata.
  HubTensors(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> file, Node config);
  const Node& config() const { return config_; }

  const TensorInfo* theirs(const std::string& name) const {
    const auto found = theirs_.find(name);
    return found == theirs_.end() ? nullptr : &found->second;
  }
  /// A tensor of the file, in the type that it had before it was put there.
  at::Tensor read(const std::string& name) const {
    const auto narrowed = narrowed_.find(name);
    return narrowed == narrowed_.end() ? file_->get(name) : file_->get(name).to(narrowed->second);
  }
  Packed packed_in_file(const std::string& name) const { return file_->packed(name); }
  /// Marks one of the file's tensors as accounted for.
  void use(const std::string& name) { used_.insert(name); }

  using DerivedWeights::add;
  /// Adds what `rule` makes of its tensor; nothing when the file has none.
  void add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule);
  /// Two tensors [.., F, D] as one [.., 2 F, D], or transposed [.., D, 2 F]; nothing when the file has not both.
  void add_joined(const std::string& first, const std::string& second, const std::string& hub, bool transposed = false);
  /// Ends the list: what no rule used keeps its name.
  void finish();

 private:
  void add_experts(const TensorInfo& info, const std::string& hub);
  at::Tensor read_restored(const std::string& name, Rule::Value value) const;

  std::shared_ptr<const WeightSource> file_;
  Node config_;
  int64_t heads_ = 0, key_heads_ = 0;  ///< whose rows of q and k are permuted
  std::map<std::string, TensorInfo> theirs_;
  std::map<std::string, at::ScalarType> narrowed_;
  std::map<std::string, std::vector<uint64_t>> restored_;
  std::set<std::string> used_;
};

}  // namespace switchyard::gguf
