// A published family: how its config.json reads as model options and back, and how its tensors are named. One file a
// family; its mathematics is that of the options. Register with registry.add<Family, Mixtral, NoOptions>({...}).
#pragma once

#include <functional>
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
  /// Values of config.json's "model_type" that it reads: "mixtral".
  virtual std::vector<std::string> model_types() const = 0;
  /// Values of config.json's "architectures" that it reads.
  virtual std::vector<std::string> architectures() const { return {}; }
  /// Options of a config; throws options.* and model.config with file, line and key.
  virtual ModelOptions read(const Node& config) const = 0;
  /// The same where weights say what a config leaves open: which tensors there are.
  virtual ModelOptions read(const Node& config, const HasTensor& has) const {
    (void)has;
    return read(config);
  }
  /// The config of that model type that comes nearest to a composition (models/families/composition.h), its numbers taken
  /// from where this family has them. What the family cannot say reads back otherwise; whoever writes files compares (convert/export.h).
  /// Throws model.family_option when a number the config needs is not there at all.
  virtual Node write(const Node& composition, const std::string& model_type) const = 0;
  /// Links every parameter to the file's tensors. `has` says which tensors a file has, where a family is published in several
  /// layouts; empty when writing, then the layout is the published one.
  virtual void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const = 0;
};

/// The family of that model_type, or null.
std::shared_ptr<Family> family_of(const std::string& model_type);
/// The family of a config.json, or null: of its model_type, unless only another family knows its architecture (files whose code came
/// with their weights may bear a common model_type).
std::shared_ptr<Family> family_of(const Node& config);
/// All, in the order of their slugs.
std::vector<std::shared_ptr<Family>> families();
/// All model types that can be read.
std::vector<std::string> known_model_types();

}  // namespace switchyard
