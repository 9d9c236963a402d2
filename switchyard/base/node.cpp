#include "switchyard/base/node.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <istream>
#include <streambuf>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"

namespace switchyard {

namespace {
// Settings files are small; a larger one is an accident or an attack (an alias can multiply a text).
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxYamlBytes = size_t{16} << 20;
constexpr size_t kMaxYamlNodes = size_t{1} << 18;
constexpr size_t kMaxJsonNodes = size_t{1} << 22;
constexpr size_t kMaxIncludes = 256;  // files that one recipe draws in, repeats counted
}  // namespace

const Node* Node::find(std::string_view key) const {
  for (const auto& [name, value] : entries_)
    if (name == key) return &value;
  return nullptr;
}

Node* Node::find(std::string_view key) {
  return const_cast<Node*>(static_cast<const Node*>(this)->find(key));
}

Node& Node::operator[](std::string_view key) {
  if (kind_ == Kind::null) kind_ = Kind::map;
  check(kind_ == Kind::map, "node.kind", "{}: '{}' asked of a value that is no map", where(), key);
  if (Node* found = find(key)) return *found;
  return entries_.emplace_back(std::string(key), Node()).second;
}

void Node::append(Node item) {
  if (kind_ == Kind::null) kind_ = Kind::list;
  check(kind_ == Kind::list, "node.kind", "{}: an item appended to a value that is no list", where());
  items_.push_back(std::move(item));
}

std::string Node::where() const {
  return mark_.line > 0 ? fmt::format("{}:{}", mark_.source, mark_.line) : mark_.source;
}

namespace {

/// Collects a tree from a parser's events; shared by YAML and JSON.
class TreeBuilder {
 public:
  TreeBuilder(std::string format, const std::string& source, size_t max_nodes)
      : format_(std::move(format)), source_(source), max_nodes_(max_nodes) {}

  void begin(Node container, int line) {
    if (stack_.size() >= kMaxDepth)
      refuse("depth", line, fmt::format("nested deeper than {} levels", kMaxDepth));
    count(1, line);
    container.set_mark({source_, line});
    refuse_as_key(line);
    stack_.push_back({std::move(container), {}, false, {}});
  }

  /// Closes the innermost container; returns a pointer to it in its parent (valid until the next event).
  const Node* end() {
    Node done = std::move(stack_.back().node);
    stack_.pop_back();
    return place(std::move(done));
  }

  const Node* value(Node node, int line) {
    count(1, line);
    node.set_mark({source_, line});
    if (expects_key()) {
      if (!node.is_scalar()) refuse("key", line, "a key must be text");
      key(node.scalar(), line);
      return nullptr;
    }
    return place(std::move(node));
  }

  /// A finished subtree of `size` nodes, copied from elsewhere.
  void subtree(const Node& node, size_t size, int line) {
    count(size, line);
    if (stack_.size() + depth(node) > kMaxDepth)
      refuse("depth", line, fmt::format("nested deeper than {} levels", kMaxDepth));
    if (expects_key()) {
      if (!node.is_scalar()) refuse("key", line, "a key must be text");
      key(node.scalar(), line);
    } else {
      place(node);
    }
  }

  void key(const std::string& name, int line) {
    Frame& top = stack_.back();
    if (!top.seen.insert(name).second) {
      int first = top.node.find(name)->mark().line;
      refuse("duplicate_key", line, fmt::format("'{}' appears twice (first at line {}); keep one", name, first));
    }
    top.key = name;
    top.key_line = line;
    top.has_key = true;
  }

  [[noreturn]] void refuse(std::string_view code, int line, const std::string& text) const {
    throw_error(fmt::format("{}.{}", format_, code),
                line > 0 ? fmt::format("{}:{}: {}", source_, line, text) : fmt::format("{}: {}", source_, text));
  }

  Node take() { return std::move(root_); }

 private:
  struct Frame {
    Node node;
    std::string key;
    int key_line = 0;
    bool has_key = false;
    std::unordered_set<std::string> seen;
  };

  static size_t depth(const Node& node) {
    size_t below = 0;
    for (const Node& item : node.items()) below = std::max(below, depth(item));
    for (const auto& entry : node.entries()) below = std::max(below, depth(entry.second));
    return below + (node.is_list() || node.is_map() ? 1 : 0);
  }

  bool expects_key() const { return !stack_.empty() && stack_.back().node.is_map() && !stack_.back().has_key; }
  void refuse_as_key(int line) const {
    if (expects_key()) refuse("key", line, "a list or map stands where a key was expected; is its bracket closed?");
  }

  void count(size_t more, int line) {
    nodes_ += more;
    if (nodes_ > max_nodes_) refuse("size", line, fmt::format("holds more than {} values", max_nodes_));
  }

  const Node* place(Node node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return &root_;
    }
    Frame& top = stack_.back();
    if (top.node.is_list()) {
      top.node.append(std::move(node));
      return &top.node.items().back();
    }
    top.has_key = false;
    node.set_mark({source_, top.key_line});  // an entry is found where its key stands
    return &top.node.entries().emplace_back(std::move(top.key), std::move(node)).second;
  }

  std::string format_, source_;
  size_t max_nodes_, nodes_ = 0;
  std::vector<Frame> stack_;
  Node root_;
};

size_t count_nodes(const Node& node) {
  size_t count = 1;
  for (const Node& item : node.items()) count += count_nodes(item);
  for (const auto& entry : node.entries()) count += count_nodes(entry.second);
  return count;
}

class YamlEvents : public YAML::EventHandler {
 public:
  explicit YamlEvents(const std::string& source) : tree_("yaml", source, kMaxYamlNodes) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { scalar(Node(), mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(tag, mark);
    Node node(value);
    node.set_quoted(tag != "?" && !tag.empty());
    scalar(std::move(node), mark, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto found = anchors_.find(anchor);
    if (found == anchors_.end()) tree_.refuse("alias", line(mark), "an alias stands inside the value it names");
    tree_.subtree(found->second.first, found->second.second, line(mark));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(Node::list(), tag, mark, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(Node::map(), tag, mark, anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapEnd() override { end(); }

  TreeBuilder& tree() { return tree_; }

 private:
  static int line(const YAML::Mark& mark) { return mark.line + 1; }
  void check_tag(const std::string& tag, const YAML::Mark& mark) const {
    if (tag.empty() || tag == "?" || tag == "!" || tag == "tag:yaml.org,2002:str") return;
    tree_.refuse("tag", line(mark), fmt::format("the tag '{}' is not supported; write a plain value", tag));
  }
  void begin(Node container, const std::string& tag, const YAML::Mark& mark, YAML::anchor_t anchor) {
    check_tag(tag, mark);
    open_.push_back(anchor);
    tree_.begin(std::move(container), line(mark));
  }
  void end() {
    YAML::anchor_t anchor = open_.back();
    open_.pop_back();
    remember(anchor, tree_.end());
  }
  void scalar(Node node, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      Node kept = node;
      kept.set_mark({"", line(mark)});
      anchors_[anchor] = {std::move(kept), 1};
    }
    tree_.value(std::move(node), line(mark));
  }
  void remember(YAML::anchor_t anchor, const Node* node) {
    if (anchor == YAML::NullAnchor) return;
    const size_t size = count_nodes(*node);
    // Anchors within anchors are copied at each level.
    if ((remembered_ += size) > kMaxYamlNodes)
      tree_.refuse("size", node->mark().line, fmt::format("anchors hold more than {} values", kMaxYamlNodes));
    anchors_[anchor] = {*node, size};
  }

  TreeBuilder tree_;
  std::vector<YAML::anchor_t> open_;
  size_t remembered_ = 0;
  std::map<YAML::anchor_t, std::pair<Node, size_t>> anchors_;
};

/// Reads a view as a stream, without copying it.
struct ViewBuffer : std::streambuf {
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());
    setg(begin, begin, begin + text.size());
  }
};

}  // namespace

Node parse_yaml(std::string_view text, const std::string& source) {
  check(text.size() <= kMaxYamlBytes, "yaml.size", "{} has {} bytes; settings may have {}", source, text.size(),
        kMaxYamlBytes);
  YamlEvents events(source);
  ViewBuffer buffer(text);
  std::istream stream(&buffer);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(events)) {
      Node empty;
      empty.set_mark({source, 1});
      return empty;
    }
    Node root = events.tree().take();
    YamlEvents rest(source);
    if (parser.HandleNextDocument(rest))
      fail("yaml.syntax", "{}: holds more than one document; keep one", source);
    return root;
  } catch (const YAML::Exception& error) {
    events.tree().refuse("syntax", error.mark.line + 1, error.msg);
  }
}

namespace {

/// Walks a text and counts its lines for the JSON parser's events.
struct CountedText {
  const char* at = nullptr;
  int* line = nullptr;
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  reference operator*() const { return *at; }
  CountedText& operator++() {
    if (*at == '\n') ++*line;
    ++at;
    return *this;
  }
  CountedText operator++(int) { CountedText old = *this; ++*this; return old; }
  bool operator==(const CountedText& other) const { return at == other.at; }
  bool operator!=(const CountedText& other) const { return at != other.at; }
};

class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonEvents(const std::string& source, std::string_view text)
      : tree_("json", source, kMaxJsonNodes), text_(text) {}

  bool null() override { return value(Node(), false); }
  bool boolean(bool v) override { return value(Node(v ? "true" : "false"), false); }
  bool number_integer(number_integer_t v) override { return value(Node(std::to_string(v)), false); }
  bool number_unsigned(number_unsigned_t v) override { return value(Node(std::to_string(v)), false); }
  bool number_float(number_float_t, const string_t& text) override { return value(Node(text), false); }
  bool string(string_t& v) override { return value(Node(std::move(v)), true); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { tree_.begin(Node::map(), line); return true; }
  bool key(string_t& name) override { tree_.key(name, line); return true; }
  bool end_object() override { tree_.end(); return true; }
  bool start_array(std::size_t) override { tree_.begin(Node::list(), line); return true; }
  bool end_array() override { tree_.end(); return true; }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view before = text_.substr(0, position > 0 ? position - 1 : 0);
    int at = 1 + static_cast<int>(std::count(before.begin(), before.end(), '\n'));
    std::string reason = json_fault(error);
    if (size_t colon = reason.find(": "); colon != std::string::npos) reason = reason.substr(colon + 2);
    tree_.refuse("syntax", at, reason);
  }

  Node take() { return tree_.take(); }
  int line = 1;

 private:
  bool value(Node node, bool quoted) {
    node.set_quoted(quoted);
    tree_.value(std::move(node), line);
    return true;
  }
  TreeBuilder tree_;
  std::string_view text_;
};

}  // namespace

Node parse_json(std::string_view text, const std::string& source) {
  JsonEvents events(source, text);
  CountedText begin{text.data(), &events.line}, end{text.data() + text.size(), &events.line};
  nlohmann::json::sax_parse(begin, end, &events);
  return events.take();
}

namespace {

struct Including {
  std::vector<std::filesystem::path> open;
  size_t files = 0;
};

Node load_with_includes(const std::string& path, Including& state, const std::string& asked_at) {
  namespace fs = std::filesystem;
  std::vector<fs::path>& open = state.open;
  check(++state.files <= kMaxIncludes, "yaml.include", "{}: more than {} files are included", asked_at, kMaxIncludes);
  std::error_code ignored;
  fs::path canonical = fs::weakly_canonical(path, ignored);
  if (std::find(open.begin(), open.end(), canonical) != open.end())
    fail("yaml.include_cycle", "{}: {} includes itself", asked_at, path);
  check(asked_at.empty() || fs::exists(path, ignored), "file.missing", "{}: the included file {} does not exist",
        asked_at, path);
  Node own = parse_yaml(read_file(path, kMaxYamlBytes), path);
  Node* include = own.is_map() ? own.find("include") : nullptr;
  if (!include) return own;

  open.push_back(canonical);
  Node whole = Node::map();
  whole.set_mark(own.mark());
  auto add = [&](const Node& name) {
    check(name.is_scalar() && !name.scalar().empty(), "yaml.include", "{}: include takes a file name or a list of them",
          name.where());
    fs::path target = fs::path(path).parent_path() / name.scalar();
    Node part = load_with_includes(target.string(), state, name.where());
    check(part.is_map() || part.is_null(), "yaml.include", "{}: {} holds no map of settings", name.where(),
          target.string());
    if (part.is_map()) merge(whole, part);
  };
  if (include->is_list()) for (const Node& name : include->items()) add(name);
  else add(*include);
  open.pop_back();

  auto& entries = own.entries();
  entries.erase(std::find_if(entries.begin(), entries.end(), [](const auto& e) { return e.first == "include"; }));
  merge(whole, own);
  return whole;
}

}  // namespace

Node load_yaml(const std::string& path) {
  Including state;
  return load_with_includes(path, state, "");
}

namespace {

void emit(YAML::Emitter& out, const Node& node) {
  switch (node.kind()) {
    case Node::Kind::null: out << YAML::Null; break;
    case Node::Kind::scalar:
      if (node.quoted()) out << YAML::DoubleQuoted;
      out << node.scalar();
      break;
    case Node::Kind::list:
      out << YAML::BeginSeq;
      for (const Node& item : node.items()) emit(out, item);
      out << YAML::EndSeq;
      break;
    case Node::Kind::map:
      out << YAML::BeginMap;
      for (const auto& [key, value] : node.entries()) {
        out << YAML::Key << key << YAML::Value;
        emit(out, value);
      }
      out << YAML::EndMap;
      break;
  }
}

/// The scalar as a JSON number or boolean, or empty when it is text.
std::string json_literal(const std::string& text) {
  if (text == "true" || text == "false") return text;
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string::npos) return {};
  if (nlohmann::json::accept(text)) return text;
  double number = 0;  // ".5" and "2." are numbers in YAML, but not in JSON
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  bool whole = error == std::errc() && end == text.data() + text.size() && text.find('.') != std::string::npos;
  return whole ? fmt::format("{}", number) : std::string();
}

std::string json_text(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void write_json(std::string& out, const Node& node, int indent, int depth) {
  auto line = [&](int level) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(indent * level), ' ');
  };
  auto all = [&](char open, char close, const auto& list, auto&& one) {
    out += open;
    bool first = true;
    for (const auto& item : list) {
      if (!first) out += ',';
      first = false;
      line(depth + 1);
      one(item);
    }
    if (!list.empty()) line(depth);
    out += close;
  };
  switch (node.kind()) {
    case Node::Kind::null: out += "null"; break;
    case Node::Kind::scalar: {
      std::string literal = node.quoted() ? std::string() : json_literal(node.scalar());
      out += literal.empty() ? json_text(node.scalar()) : literal;
      break;
    }
    case Node::Kind::list:
      all('[', ']', node.items(), [&](const Node& item) { write_json(out, item, indent, depth + 1); });
      break;
    case Node::Kind::map:
      all('{', '}', node.entries(), [&](const auto& entry) {
        out += json_text(entry.first) + (indent < 0 ? ":" : ": ");
        write_json(out, entry.second, indent, depth + 1);
      });
      break;
  }
}

}  // namespace

std::string to_yaml(const Node& node) {
  YAML::Emitter out;
  out.SetIndent(2);
  emit(out, node);
  return std::string(out.c_str()) + "\n";
}

std::string to_json(const Node& node, int indent) {
  std::string out;
  write_json(out, node, indent, 0);
  if (indent >= 0) out += '\n';
  return out;
}

void merge(Node& base, const Node& over) {
  const Node* old_type = base.is_map() ? base.find("type") : nullptr;
  const Node* new_type = over.is_map() ? over.find("type") : nullptr;
  // Another method's options mean nothing to the new one.
  bool other_method = old_type && new_type && old_type->is_scalar() && new_type->is_scalar() &&
                      old_type->scalar() != new_type->scalar();
  if (!base.is_map() || !over.is_map() || other_method) {
    base = over;
    return;
  }
  for (const auto& [key, value] : over.entries()) {
    if (Node* found = base.find(key)) merge(*found, value);
    else base[key] = value;
  }
}

namespace {

void mark_all(Node& node, const Mark& mark) {
  node.set_mark(mark);
  for (Node& item : node.items()) mark_all(item, mark);
  for (auto& entry : node.entries()) mark_all(entry.second, mark);
}

bool is_index(std::string_view text) {
  return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_slug(const Node& node) {
  const std::string& text = node.scalar();
  return node.is_scalar() && !text.empty() && text[0] >= 'a' && text[0] <= 'z' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos && text != "true" &&
         text != "false";
}

}  // namespace

void apply_override(Node& root, std::string_view assignment) {
  size_t equals = assignment.find('=');
  check(equals != std::string_view::npos && equals > 0, "options.override",
        "'{}' is no override; write key=value, such as train.steps=100", assignment);
  std::string_view path = assignment.substr(0, equals);
  Mark mark{fmt::format("override '{}'", assignment), 0};

  Node value = parse_yaml(assignment.substr(equals + 1), mark.source);
  mark_all(value, mark);

  Node* at = &root;
  for (size_t begin = 0; begin <= path.size();) {
    size_t dot = std::min(path.find('.', begin), path.size());
    std::string_view part = path.substr(begin, dot - begin);
    std::string_view walked = path.substr(0, begin > 0 ? begin - 1 : 0);
    begin = dot + 1;
    check(!part.empty(), "options.override", "'{}' has an empty key between its dots", assignment);

    if (at->is_scalar()) {
      // `router: switch-top1` is short for `router: {type: switch-top1}`, which has keys.
      check(is_slug(*at), "options.override", "'{}': {} is the value '{}', which has no '{}'", assignment, walked,
            at->scalar(), part);
      Node method = Node::map();
      method.set_mark(at->mark());
      method["type"] = std::move(*at);
      *at = std::move(method);
    }
    if (at->is_null() && is_index(part)) {
      *at = Node::list();
      at->set_mark(mark);
    }
    if (at->is_list()) {
      size_t count = at->items().size(), index = 0;
      if (is_index(part)) std::from_chars(part.data(), part.data() + part.size(), index);
      check(is_index(part) && index <= count, "options.override",
            "'{}': {} is a list of {}; write an index from 0 to {} (the last one appends) instead of '{}'", assignment,
            walked, count, count, part);
      if (index == count) at->append(Node());
      at = &at->items()[index];
    } else {
      if (at->is_null()) {
        *at = Node::map();
        at->set_mark(mark);
      }
      at = &(*at)[part];
    }
  }
  *at = std::move(value);
}

}  // namespace switchyard
