#include "switchyard/models/families/composition.h"

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard {
namespace {

/// What is left out: nothing, or what says how weights began and not what they compute.
enum class Scope { everything, function };
Node filled(const Node& node, const Description& description, Scope scope = Scope::function);

/// A value of that type with the defaults of everything inside it, numbers written alike.
Node filled(const Node& node, const ValueType& type, Scope scope) {
  using Kind = ValueType::Kind;
  Field field;
  switch (type.kind) {
    case Kind::integer: {
      int64_t value = 0;
      detail::read_value(node, value, field);
      return detail::write_value(value);
    }
    case Kind::number: {
      double value = 0;
      detail::read_value(node, value, field);
      return detail::write_value(value);
    }
    case Kind::boolean: {
      bool value = false;
      detail::read_value(node, value, field);
      return detail::write_value(value);
    }
    case Kind::text:
    case Kind::choice: return Node(node.scalar());
    case Kind::optional: return node.is_null() ? Node() : filled(node, *type.item, scope);
    case Kind::list: {
      Node list = Node::list();
      if (node.is_list()) for (const Node& item : node.items()) list.append(filled(item, *type.item, scope));
      else if (!node.is_null()) list.append(filled(node, *type.item, scope));
      return list;
    }
    case Kind::map: {
      Node map = Node::map();
      for (const auto& [key, value] : node.entries()) map[key] = filled(value, *type.item, scope);
      return map;
    }
    case Kind::group: return filled(node, type.group(), scope);
    case Kind::method: {
      std::string slug;
      Node options;
      detail::read_choice_of(type.room, node, field, slug, options);
      if (slug.empty()) return Node("none");
      Node map = Node::map();
      map["type"] = Node(slug);
      const Node inside = filled(options, Registry::instance().find(type.room, slug).defaults(), scope);
      for (const auto& [key, value] : inside.entries()) map[key] = value;
      return map;
    }
  }
  return {};
}

Node filled(const Node& node, const Description& description, Scope scope) {
  Node map = Node::map();
  for (const Field& field : description.fields) {
    if (scope == Scope::function && field.name == "init_deviation") continue;
    const Node* given = node.is_map() ? node.find(field.name) : nullptr;
    map[field.name] = filled(given ? *given : field.default_value.value_or(Node()), field.type, scope);
  }
  return map;
}

template <typename Interface>
Node filled_choice(const Choice<Interface>& choice) {
  return choice ? filled(choice.write(), Choice<Interface>::value_type(), Scope::function) : Node("none");
}

void set_extent(Node& node, const char* key, const Decoder& decoder, const std::string& parameter, size_t dim) {
  if (const Parameter found = decoder.schema().find(parameter)) node[key] = detail::write_value(found.spec().shape[dim]);
}

/// One of the model's stacks, and what stands before the names of its parameters.
struct Part {
  const Decoder& decoder;
  const StackOptions& options;
  std::string prefix;
};

Node attention_of(const Decoder& decoder, const Choice<Body>& choice) {
  Node node = filled_choice(choice);
  if (!node.is_map() || (text_at(node, "type") != "gqa" && text_at(node, "type") != "cross-attention")) return node;
  const int64_t heads = integer_at(node, "heads");
  if (integer_at(node, "kv_heads") == 0) node["kv_heads"] = detail::write_value(heads);
  if (integer_at(node, "head_dim") == 0) node["head_dim"] = detail::write_value(decoder.options().width / heads);
  return node;
}

/// The k best of fewer than a million experts' probabilities have a larger sum.
constexpr double kNeverReached = 1e-6;

/// One spelling for weights that are equal.
void settle_router(Node& mixture) {
  Node& router = mixture["router"];
  Node& combine = mixture["combine"];
  if (router.is_map() && router.find("groups") && integer_at(router, "groups") == 1)
    router["chosen_groups"] = router["group_best"] = detail::write_value(int64_t{1});
  if (router.is_map() && text_at(router, "type") == "sparse-topk" && number_at(combine, "order") == 1) {
    const bool divided = text_at(combine, "renormalise") != "never" && number_at(combine, "least") <= kNeverReached;
    if (text_at(router, "softmax") == "all" && divided) router["softmax"] = Node("kept");
    if (text_at(router, "softmax") == "kept") combine["renormalise"] = Node("never");
  }
  if (text_at(combine, "renormalise") != "never") return;
  combine["order"] = detail::write_value(CombineOptions{}.order);
  combine["least"] = detail::write_value(CombineOptions{}.least);
}

/// Gated experts whose activation names a kind are of that kind.
void settle_expert(Node& expert) {
  if (!expert.is_map() || text_at(expert, "type") != "ffn-expert") return;
  const std::string activation = text_at(expert, "activation");
  if (activation != "swiglu" && activation != "geglu") return;
  expert["type"] = Node(activation);
  std::erase_if(expert.entries(), [](const auto& entry) { return entry.first == "activation"; });
}

Node mixture_of(const Part& part, const MixtureOptions& options, int64_t layer) {
  Node node = filled(write_options(options), described_defaults<MixtureOptions>());
  const CombineOptions combine = options.combine.value_or(options.router.make()->combine());
  node["combine"] = filled(write_options(combine), described_defaults<CombineOptions>());
  if (node["admission"].is_scalar()) {
    Node dropless = Node::map();
    dropless["type"] = Node("dropless");
    node["admission"] = std::move(dropless);
  }
  settle_router(node);
  settle_expert(node["expert"]);
  for (Node& network : node["shared"].items()) settle_expert(network["expert"]);
  if (node["expert"].is_map() && node["expert"].find("hidden"))
    set_extent(node["expert"], "hidden", part.decoder, fmt::format("{}layers.{}.{}.experts.up", part.prefix, layer, options.at), 1);
  auto& entries = node.entries();
  std::erase_if(entries, [](const auto& entry) {
    return entry.first == "layers" || entry.first == "losses" || entry.first == "controllers" || entry.first == "allow_leak";
  });
  return node;
}

Node layer_of(const Part& part, int64_t layer) {
  const StackOptions& options = part.options;
  Node node = Node::map();
  node["attention"] = attention_of(part.decoder, options.attention_of(layer));
  node["feed_forward"] = filled_choice(options.feed_forward_of(layer));
  node["extra"] = filled_choice(options.extra_of(layer));
  node["residual"] = filled(write_options(options.residual_of(layer)), described_defaults<ResidualOptions>());
  if (node["feed_forward"].is_map() && node["feed_forward"].find("hidden"))
    set_extent(node["feed_forward"], "hidden", part.decoder, fmt::format("{}layers.{}.feed_forward.up.weight", part.prefix, layer), 0);
  node["mixtures"] = Node::list();
  for (const MixtureOptions& mixture : options.mixtures) {
    if (!mixture.layers.includes(layer, options.layers)) continue;
    node["mixtures"].append(mixture_of(part, mixture, layer));
    if (mixture.join == Join::replace && (mixture.at == "feed_forward" || mixture.at == "attention"))
      node[mixture.at] = Node("none");
  }
  node["sites"] = Node::list();
  for (const SiteOptions& site : options.sites) {
    if (!site.layers.includes(layer, options.layers)) continue;
    Node place = Node::map();
    place["at"] = Node(site.at);
    place["around"] = filled_choice(site.around);
    node["sites"].append(std::move(place));
  }
  return node;
}

std::string shown(const Node* node) {
  if (node == nullptr) return "(absent)";
  if (node->is_null()) return "unset";
  if (node->is_scalar()) return node->scalar();
  if (node->is_map() && node->find("type")) return text_at(*node, "type");
  if (node->is_list()) return fmt::format("a list of {}", node->items().size());
  return "{...}";
}

void compare(const std::string& path, const Node* here, const Node* there, std::vector<Difference>& found) {
  const auto differ = [&] { found.push_back({path, shown(here), shown(there)}); };
  if (here == nullptr || there == nullptr || here->kind() != there->kind()) return differ();
  const std::string prefix = path.empty() ? "" : path + ".";
  if (here->is_scalar() && here->scalar() != there->scalar()) return differ();
  if (here->is_list()) {
    if (here->items().size() != there->items().size()) return differ();
    for (size_t i = 0; i < here->items().size(); ++i)
      compare(prefix + std::to_string(i), &here->items()[i], &there->items()[i], found);
  }
  if (!here->is_map()) return;
  // Another method has other options: its name says it all.
  const Node *type = here->find("type"), *other = there->find("type");
  if (type && other && type->scalar() != other->scalar()) return differ();
  for (const auto& [key, value] : here->entries()) compare(prefix + key, &value, there->find(key), found);
  for (const auto& [key, value] : there->entries())
    if (here->find(key) == nullptr) compare(prefix + key, nullptr, &value, found);
}

}  // namespace

namespace {

/// What a stack's options say, layers written out one by one; `all`: its options with every default.
Node stack_node(const Part& part, const Node& all) {
  const StackOptions& options = part.options;
  Node node = Node::map();
  for (const auto& [key, value] : all.entries())
    if (key != "layers" && key != "attention" && key != "feed_forward" && key != "extra" && key != "residual" && key != "variants" &&
        key != "mixtures" && key != "sites" && key != "encoder" && key != "cross_attention")
      node[key] = value;
  if (options.final_norm) node["final_norm_eps"] = detail::write_value(options.final_norm_eps.value_or(options.norm_eps));
  const auto leave_out = [&](std::string_view what) {
    std::erase_if(node.entries(), [&](const auto& entry) { return entry.first.starts_with(what); });
  };
  if (options.positions != Positions::rope) leave_out("rope_");
  if (options.positions != Positions::relative) leave_out("relative_");
  if (options.positions != Positions::sinusoidal) leave_out("position_offset");
  node["layers"] = Node::list();
  for (int64_t layer = 0; layer < options.layers; ++layer) node["layers"].append(layer_of(part, layer));
  return node;
}

}  // namespace

Node composition(const Decoder& decoder) {
  const ModelOptions& options = decoder.options();
  const Node all = filled(write_options(options), described_defaults<ModelOptions>());
  Node node = stack_node({decoder, options, ""}, all);
  node["cross_attention"] = attention_of(decoder, options.cross_attention);
  if (options.encoder) node["encoder"] = stack_node({decoder, *options.encoder, "encoder."}, *all.find("encoder"));
  return node;
}

Node written_out(const ModelOptions& options) { return filled(write_options(options), described_defaults<ModelOptions>(), Scope::everything); }

std::vector<Difference> differences(const Node& here, const Node& there) {
  std::vector<Difference> found;
  compare("", &here, &there, found);
  return found;
}

}  // namespace switchyard
