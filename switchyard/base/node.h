// A parsed settings tree (YAML or JSON) that remembers where each value stood, so that an error
// can name file and line. Options are read from it (base/options.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

/// Where a value was written. line is 1-based; 0 = not from a file (an override, a default).
struct Mark {
  std::string source;  ///< file name, or the override as it was typed
  int line = 0;
};

/// A value: null, a scalar (kept as its text), a list, or a map in file order.
class Node {
 public:
  enum class Kind { null, scalar, list, map };

  Node() = default;
  explicit Node(std::string scalar) : kind_(Kind::scalar), scalar_(std::move(scalar)) {}
  static Node list() { Node n; n.kind_ = Kind::list; return n; }
  static Node map() { Node n; n.kind_ = Kind::map; return n; }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_scalar() const { return kind_ == Kind::scalar; }
  bool is_list() const { return kind_ == Kind::list; }
  bool is_map() const { return kind_ == Kind::map; }

  const std::string& scalar() const { return scalar_; }
  /// True when the scalar stood in quotes: "1" is text, 1 is a number.
  bool quoted() const { return quoted_; }
  void set_quoted(bool quoted) { quoted_ = quoted; }

  const std::vector<Node>& items() const { return items_; }
  std::vector<Node>& items() { return items_; }
  const std::vector<std::pair<std::string, Node>>& entries() const { return entries_; }
  std::vector<std::pair<std::string, Node>>& entries() { return entries_; }

  /// The entry of a map, or null when there is none.
  const Node* find(std::string_view key) const;
  Node* find(std::string_view key);
  /// The entry of a map, made when there is none (a null node becomes a map).
  Node& operator[](std::string_view key);
  void append(Node item);

  const Mark& mark() const { return mark_; }
  void set_mark(Mark mark) { mark_ = std::move(mark); }
  /// "recipe.yaml:12", or the source alone when there is no line.
  std::string where() const;

 private:
  Kind kind_ = Kind::null;
  bool quoted_ = false;
  std::string scalar_;
  std::vector<Node> items_;
  std::vector<std::pair<std::string, Node>> entries_;
  Mark mark_;
};

/// Reads one YAML document; throws yaml.syntax with file and line, yaml.duplicate_key,
/// yaml.key, yaml.tag, yaml.alias, yaml.depth, yaml.size (aliases count as what they stand for).
Node parse_yaml(std::string_view text, const std::string& source);
/// The same from a file, with `include: other.yaml` (or a list) merged below the file's own keys;
/// throws file.missing, yaml.include_cycle.
Node load_yaml(const std::string& path);
/// Writes YAML that parse_yaml reads back as the same tree.
std::string to_yaml(const Node& node);
/// JSON in and out of the same tree; numbers keep their text. Throws json.syntax, json.duplicate_key,
/// json.depth, json.size.
Node parse_json(std::string_view text, const std::string& source);
std::string to_json(const Node& node, int indent = 2);

/// Lays `over` on `base`: maps merge key by key, everything else is replaced. So is a map whose
/// `type` differs: it names another method, with options of its own.
void merge(Node& base, const Node& over);
/// Applies "train.steps=100" or "model.mixtures.0.router.k=4" (the value is YAML). An index one past
/// a list's end appends; a method's name grows into {type: name}. Throws options.override when the
/// text has no '=', an index is out of range, or a key is asked of another scalar.
void apply_override(Node& root, std::string_view assignment);

}  // namespace switchyard
