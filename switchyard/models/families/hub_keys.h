// The keys of a family's config.json as a table that is read in both directions: a key, the place in the model's options whose
// value it is, and what stands there when a file leaves it out.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/base/node.h"

namespace switchyard {

struct HubKey {
  enum class Kind { count, number, flag, text };
  std::string key;                      ///< "hidden_size"; "a|b": either spelling, the first is written; "a.b": b in the map a
  /// "width": of the model; "attention.heads", "mixture.experts", "dense.hidden": of a part. Several, parted by blanks: of each.
  std::string places;
  Kind kind = Kind::count;
  std::optional<std::string> standard = {};  ///< for an absent key; unset = files must have it; empty = leaves the place alone
  std::vector<std::pair<std::string, std::string>> words = {};  ///< what values here are there; other values are refused
  double lowest = 0, highest = 1 << 24;
  bool null_is_standard = false;        ///< a null says the standard, and is written for it

  HubKey absent(std::string value) && { standard = std::move(value); return std::move(*this); }
  HubKey or_null(std::string value) && { standard = std::move(value); null_is_standard = true; return std::move(*this); }
  HubKey means(std::vector<std::pair<std::string, std::string>> list) && { words = std::move(list); return std::move(*this); }
  HubKey from(double low) && { lowest = low; return std::move(*this); }
};
HubKey count_key(std::string key, std::string places);   ///< an integer, at least 1 unless from() says otherwise
HubKey number_key(std::string key, std::string places);
HubKey flag_key(std::string key, std::string places);
HubKey text_key(std::string key, std::string places);

/// One config.json that is read key by key; what nobody asked for is left over.
class HubReader {
 public:
  /// has: which tensors the weights have, where that is known.
  explicit HubReader(const Node& config, std::function<bool(const std::string&)> has = {}) : config_(config), has_(std::move(has)) {}
  const Node& config() const { return config_; }

  /// Null when absent or null. The key counts as known.
  const Node* find(const std::string& key) const;
  /// Whether a file says null, which in many keys is no absence.
  bool is_null(const std::string& key) const;
  /// Throws options.missing, options.type, options.range, options.choice naming file, line and key.
  std::optional<Node> value(const HubKey& key) const;
  int64_t count(const std::string& key, std::optional<int64_t> standard = {}, int64_t lowest = 1) const;
  double number(const std::string& key, double standard) const;
  bool flag(const std::string& key, bool standard) const;
  std::string text(const std::string& key, const std::string& standard) const;
  std::vector<int64_t> counts(const std::string& key) const;  ///< empty when absent
  std::vector<std::string> texts(const std::string& key) const;
  /// Known and without effect on what is computed.
  void pass(const std::string& key) const { known_.insert(key); }
  /// Refuses (model.config) unless absent, null or one of `values`: what acts otherwise cannot be computed here.
  void only(const std::string& key, const std::vector<std::string>& values) const;
  /// Whether the weights are known not to have a tensor.
  bool lacks(const std::string& tensor) const { return has_ && !has_(tensor); }

  /// Names unknown keys once in a warning; refuses (model.config) those that change the mathematics of other families.
  void finish() const;

 private:
  const Node& config_;
  std::function<bool(const std::string&)> has_;
  mutable std::set<std::string> known_;
};

/// Reading a composition: "layers.0.attention.heads". Throws model.family_option naming the path when it is absent or of
/// another kind.
int64_t integer_at(const Node& composition, const std::string& path);
double number_at(const Node& composition, const std::string& path);
bool flag_at(const Node& composition, const std::string& path);
std::string text_at(const Node& composition, const std::string& path);
/// Null when there is no such path.
const Node* find_at(const Node& composition, const std::string& path);
/// The node at that path, made when it is not there.
Node& place_at(Node& tree, const std::string& path);

/// Classes of a classifier: the entries of id2label, or num_labels, or 2 as the library has it; and id2label with names by number.
int64_t labels_of(const HubReader& config);
void write_labels(int64_t classes, Node& config);
/// Where `config` has as many classes as `source`, they get its names, which no option says.
void keep_labels(const Node& source, Node& config);

/// Scalars as config.json has them.
Node hub_text(std::string text);
Node hub_count(int64_t value);
Node hub_number(double value);  ///< readers tell 1.0 from 1
Node hub_flag(bool value);

/// Rotary settings in either spelling (rope_theta and rope_scaling, rope_parameters) to the model's rope_* options; throws
/// model.config for kinds that cannot be computed. theta: of files that do not say it.
void read_rotary(const HubReader& config, Node& model, const std::string& theta = "10000");
/// Both spellings.
void write_rotary(const Node& composition, Node& config);

}  // namespace switchyard
