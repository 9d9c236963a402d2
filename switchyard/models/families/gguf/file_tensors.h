// A folder's tensors under the container's names and in its shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/kernels/packed_views.h"
#include "switchyard/models/families/derived_weights.h"
#include "switchyard/models/families/gguf/architecture.h"

namespace switchyard::gguf {

class FileTensors : public DerivedWeights {
 public:
  using Make = std::function<at::Tensor(const std::vector<at::Tensor>& parts)>;
  /// The same of parts that are all packed; null where that is no choice of their rows.
  using MakePacked = std::function<Packed(const std::vector<Packed>& parts)>;

  FileTensors(std::shared_ptr<const WeightSource> hub, const Node& config)
      : DerivedWeights(config.mark().source), hub_(std::move(hub)), config_(config) {
    for (const TensorInfo& info : hub_->tensors()) infos_.emplace(info.name, info);
  }

  const TensorInfo* hub(const std::string& name) const {
    const auto found = infos_.find(name);
    return found == infos_.end() ? nullptr : &found->second;
  }
  bool used(const std::string& name) const { return used_.contains(name); }
  /// Of the folder, in one spelling of its many.
  const Node& config() const { return config_; }
  /// What a file cannot give back of tensors whose numbers it holds changed: see kRestored.
  const std::map<std::string, std::vector<uint64_t>>& restored_numbers() const { return restored_; }
  /// Type → tensors that had it and are float32 in the file.
  const std::map<std::string, std::vector<std::string>>& narrowed() const { return narrowed_; }

  using DerivedWeights::add;
  void add(const std::string& prefix, const std::string& hub_prefix, const Rule& rule);
  /// A tensor made of some of the hub's, all of one type.
  void add(const std::string& name, const std::vector<std::string>& parts, std::vector<int64_t> shape, Make make, MakePacked pack = {});
  /// The rows of `of`, [.., 2 F, D], in two tensors [.., F, D]; transposed: the hub has [.., D, 2 F]. Nothing when there is no `of`.
  void add_halves(const std::string& of, const std::string& first, const std::string& second, bool transposed = false);

 private:
  void add_changed(const std::string& name, const std::string& of, std::vector<int64_t> shape, Rule::Value value);
  std::shared_ptr<const WeightSource> hub_;
  const Node& config_;
  std::map<std::string, TensorInfo> infos_;
  std::set<std::string> used_;
  std::map<std::string, std::vector<std::string>> narrowed_;  ///< type → tensors that had it
  std::map<std::string, std::vector<uint64_t>> restored_;
};

/// Experts as library 5 has them: [E, 2 F, D] with gates before maps, and [E, D, F].
void add_fused(FileTensors& tensors, const std::string& prefix, const std::string& hub);

}  // namespace switchyard::gguf
