// A published family: how its config.json reads as model options and back, and how its tensors are named. One file a
// family; its mathematics is that of the options.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/base/registry.h"
#include "switchyard/models/families/name_map.h"
#include "switchyard/models/model_options.h"

namespace switchyard {

class Family {
 public:
  static constexpr const char* kInterface = "family";
  virtual ~Family() = default;
  /// config.json's "model_type" and "architectures": "mixtral", "MixtralForCausalLM".
  virtual std::string model_type() const = 0;
  virtual std::string architecture() const = 0;
  /// Options of a config; throws options.* and model.config with file, line and key.
  virtual ModelOptions read(const Node& config) const = 0;
  /// The config of a composition (models/families/composition.h), taken from where this family would say it. Whatever the
  /// family cannot say comes back otherwise from read; whoever writes files compares.
  virtual Node write(const Node& composition) const = 0;
  /// Links every parameter to the file's tensors. `has` says which tensors a file has, where a family is published in several
  /// layouts; when writing it is empty and the layout is the published one.
  virtual void names(NameMap& map, const ModelOptions& options, const std::function<bool(const std::string&)>& has) const = 0;
};

/// The family of that model_type, or null.
std::shared_ptr<Family> family_of(const std::string& model_type);
/// All, sorted by name.
std::vector<std::shared_ptr<Family>> families();

}  // namespace switchyard
