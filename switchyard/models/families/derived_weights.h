// Weights that are made from another source's: renamed, stacked, cut, permuted. Nothing is made before it is asked for.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/weight_source.h"

namespace switchyard {

class DerivedWeights : public WeightSource {
 public:
  struct Recipe {
    TensorInfo info;
    std::function<at::Tensor()> get;
    std::function<std::shared_ptr<const PackedTensor>()> packed = {};  ///< none: the tensor is never packed
  };
  /// where: the file or folder, for messages.
  explicit DerivedWeights(std::string where) : where_(std::move(where)) {}

  /// Throws model.gguf when the name is there already.
  void add(Recipe recipe);

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }  ///< in the order in which they were added
  bool has(std::string_view name) const override { return recipes_.contains(name); }
  at::Tensor get(std::string_view name) const override { return at(name).get(); }  ///< throws formats.gguf.missing
  std::shared_ptr<const PackedTensor> packed(std::string_view name) const override;
  const std::string& where() const { return where_; }

 private:
  const Recipe& at(std::string_view name) const;

  std::string where_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, Recipe, std::less<>> recipes_;
};

}  // namespace switchyard
