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
  /// heads, key_heads: whose rows of q and k are permuted.
  HubTensors(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> file, int64_t heads, int64_t key_heads);

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
  /// Ends the list: what no rule used keeps its name.
  void finish();

 private:
  void add_experts(const TensorInfo& info, const std::string& hub);

  std::shared_ptr<const WeightSource> file_;
  int64_t heads_, key_heads_;
  std::map<std::string, TensorInfo> theirs_;
  std::map<std::string, at::ScalarType> narrowed_;
  std::set<std::string> used_;
};

}  // namespace switchyard::gguf
