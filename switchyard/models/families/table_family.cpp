#include "switchyard/models/families/table_family.h"

#include <fmt/format.h>

#include <algorithm>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

bool is_mixture(const std::string& part) { return part.starts_with("mixture"); }
bool is_feed_forward(const std::string& part) { return part.starts_with("dense"); }

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (end > begin) words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

std::string head_of(const std::string& place) { return place.substr(0, place.find('.')); }

Node layer_list(const std::vector<int64_t>& layers) {
  Node placement = Node::map();
  placement["list"] = Node::list();
  for (int64_t layer : layers) placement["list"].append(hub_count(layer));
  return placement;
}

/// Nodes that stand in several layers, with those layers, in the order of the first.
std::vector<std::pair<Node, std::vector<int64_t>>> grouped(const std::vector<Draft::Layer>& layers, Node Draft::Layer::*which) {
  std::vector<std::pair<Node, std::vector<int64_t>>> groups;
  std::map<std::string, size_t> place;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Node& node = layers[i].*which;
    const auto [found, fresh] = place.emplace(to_json(node, -1), groups.size());
    if (fresh) groups.emplace_back(node, std::vector<int64_t>{});
    groups[found->second].second.push_back(static_cast<int64_t>(i));
  }
  return groups;
}

/// The most frequent one becomes the model's, the others variants.
void lay_out(Node& stack, const std::vector<Draft::Layer>& layers, Node Draft::Layer::*which, const char* key, bool group,
             std::vector<Node>& variants) {
  auto groups = grouped(layers, which);
  if (groups.empty()) return;
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.second.size() > b.second.size(); });
  const auto said = [&](const Node& node) { return node.is_null() && !group ? Node("none") : node; };
  if (!groups[0].first.is_null() || !group) stack[key] = said(groups[0].first);
  for (size_t g = 1; g < groups.size(); ++g) {
    Node variant = Node::map();
    variant["layers"] = layer_list(groups[g].second);
    variant[key] = said(groups[g].first);
    variants.push_back(std::move(variant));
  }
}

/// Layers to a stack's attention, feed_forward, ..., variants and mixtures.
void lay_out(Node& stack, std::vector<Draft::Layer> layers, const std::string& source) {
  std::vector<Node> variants;
  lay_out(stack, layers, &Draft::Layer::attention, "attention", false, variants);
  // Where a mixture stands, what it replaces does not matter: the dense layers' network is the model's.
  for (Draft::Layer& layer : layers)
    if (!layer.mixture.is_null() && layer.dense.is_null())
      for (const Draft::Layer& other : layers)
        if (other.mixture.is_null() && !other.dense.is_null()) layer.dense = other.dense;
  const bool any_dense = std::any_of(layers.begin(), layers.end(), [](const auto& l) { return l.mixture.is_null(); });
  if (any_dense) lay_out(stack, layers, &Draft::Layer::dense, "feed_forward", false, variants);
  const bool any_extra = std::any_of(layers.begin(), layers.end(), [](const auto& l) { return !l.extra.is_null(); });
  if (any_extra) lay_out(stack, layers, &Draft::Layer::extra, "extra", false, variants);
  lay_out(stack, layers, &Draft::Layer::residual, "residual", true, variants);
  for (Node& variant : variants) stack["variants"].append(std::move(variant));
  for (auto& [mixture, places] : grouped(layers, &Draft::Layer::mixture)) {
    if (mixture.is_null()) continue;
    if (find_at(mixture, "router.k") && find_at(mixture, "experts"))
      check(integer_at(mixture, "router.k") <= integer_at(mixture, "experts"), "model.config",
            "{}: a token takes {} experts, but there are {}", source, integer_at(mixture, "router.k"),
            integer_at(mixture, "experts"));
    if (places.size() < layers.size()) mixture["layers"] = layer_list(places);
    stack["mixtures"].append(std::move(mixture));
  }
}

}  // namespace

ModelOptions options_of(Draft draft) {
  const std::string source = draft.model.mark().source;
  lay_out(draft.model, std::move(draft.layers), source);
  if (draft.model.find("encoder")) lay_out(draft.model["encoder"], std::move(draft.encoder), source);
  return read_options<ModelOptions>(draft.model);
}

// --- names -----------------------------------------------------------------------------------------

namespace {

std::string filled(std::string text, const char* what, int64_t number) {
  for (size_t at; (at = text.find(what)) != std::string::npos;) text.replace(at, 3, std::to_string(number));
  return text;
}

constexpr int64_t kManyExperts = 4096;

/// One rule at one layer.
void apply(NameMap& map, const NameRule& rule, const std::vector<std::string>& ours, const std::string& theirs) {
  const bool each = theirs.find("{e}") != std::string::npos, by_expert = each || rule.flat;
  const auto at = static_cast<size_t>(rule.dim);
  std::vector<std::vector<int64_t>> shapes;
  for (const std::string& name : ours) shapes.push_back(map.shape(name));
  const int64_t experts = by_expert ? shapes[0][0] : 1;
  if (by_expert) for (auto& shape : shapes) shape.erase(shape.begin());
  std::vector<int64_t> whole = shapes[0];
  for (size_t p = 1; p < shapes.size(); ++p) whole[at] += shapes[p][at];
  std::vector<int64_t> shape = whole;
  const auto last = static_cast<int64_t>(whole.size()) - 1;
  View common;
  if (rule.unit >= 0) common.push_back(ViewStep::select(rule.unit, 0));
  if (rule.transposed) {
    std::swap(shape[static_cast<size_t>(last)], shape[static_cast<size_t>(last - 1)]);
    common.push_back(ViewStep::transpose(last - 1, last));
  }
  const int64_t rows = shape.empty() ? 1 : shape[0];
  if (rule.flat) shape[0] *= experts;
  if (rule.unit >= 0) shape.insert(shape.begin() + rule.unit, 1);
  for (int64_t e = 0; e < experts; ++e) {
    int64_t first = 0;
    for (size_t p = 0; p < ours.size(); ++p) {
      View from, to;
      if (by_expert) from.push_back(ViewStep::select(0, e));
      if (rule.flat) to.push_back(ViewStep::slice(0, e * rows, rows));
      to.insert(to.end(), common.begin(), common.end());
      const int64_t length = shapes[p][at];
      if (ours.size() > 1)
        to.push_back(rule.interleaved ? ViewStep::slice(rule.dim, static_cast<int64_t>(p), length, static_cast<int64_t>(ours.size()))
                                      : ViewStep::slice(rule.dim, first, length));
      first += length;
      map.link(ours[p], from, each ? filled(theirs, "{e}", e) : theirs, shape, to);
    }
  }
}

}  // namespace

void link_names(NameMap& map, int64_t layers, const std::vector<NameRule>& rules, const HasTensor& has) {
  const auto at = [&](const NameRule& rule, int64_t layer) {
    std::vector<std::string> ours;
    for (const std::string& name : rule.ours) ours.push_back(filled(name, "{i}", layer));
    const bool there = std::all_of(ours.begin(), ours.end(), [&](const auto& name) { return map.declares(name) && !map.linked(name); });
    if (!there) return;
    const std::string theirs = filled(rule.theirs, "{i}", layer);
    if (rule.if_present && !(has && has(filled(theirs, "{e}", 0)))) return;
    if (has && theirs.find("{e}") != std::string::npos)
      // So many that their names alone would fill memory are named only where the file has them.
      if (const int64_t experts = map.shape(ours[0])[0]; experts > kManyExperts)
        check(has(filled(theirs, "{e}", experts - 1)), "model.missing_tensor", "the config describes {} experts, but there is no {}", experts,
              filled(theirs, "{e}", experts - 1));
    apply(map, rule, ours, theirs);
  };
  for (const NameRule& rule : rules)
    if (rule.ours.front().find("{i}") == std::string::npos) at(rule, 0);
  for (int64_t i = 0; i < layers; ++i)
    for (const NameRule& rule : rules)
      if (rule.ours.front().find("{i}") != std::string::npos) at(rule, i);
}

void copy_embedding(NameMap& map, const std::string& prefix, const HasTensor& has, bool copies_first) {
  const std::string first = prefix + "encoder.embed_tokens.weight", second = prefix + "decoder.embed_tokens.weight";
  const bool copies = copies_first && has && map.declares("head.weight") && has(first) && has(second);
  if (copies) map.take_from(first, prefix + "shared.weight");
  for (const std::string& copy : {first, second}) {
    if (copies && copy == first) continue;
    if (has) map.repeat("embedding.weight", copy, NameMap::NoCopy::refuse);
    else if (map.declares("head.weight")) map.copy("embedding.weight", copy);
  }
}

std::vector<NameRule> llama_names(const LlamaNames& names) {
  const std::string& p = names.prefix;
  const std::string ours = "layers.{i}.", theirs = p + "layers.{i}.", experts = theirs + names.experts, shared = theirs + names.shared;
  const std::string stack = ours + "feed_forward.experts.";
  std::vector<NameRule> rules{{{"embedding.weight"}, p + "embed_tokens.weight"},
                              {{"norm.weight"}, p + "norm.weight"},
                              {{"norm.bias"}, p + "norm.bias"},
                              {{"head.weight"}, "lm_head.weight"},
                              {{"head.bias"}, "lm_head.bias"},
                              where_present({{stack + "gate", stack + "up"}, experts + ".gate_up_proj", 1}),
                              where_present({{stack + "down"}, experts + ".down_proj"}),
                              {{stack + "gate"}, experts + ".{e}." + names.gate + ".weight"},
                              {{stack + "up"}, experts + ".{e}." + names.up + ".weight"},
                              {{stack + "down"}, experts + ".{e}." + names.down + ".weight"},
                              {{ours + "feed_forward.router.weight"}, theirs + names.router}};
  const std::pair<const char*, const char*> same[]{
      {"attention_norm.weight", "input_layernorm.weight"}, {"attention_norm.bias", "input_layernorm.bias"},
      {"feed_forward_norm.weight", "post_attention_layernorm.weight"}, {"feed_forward_norm.bias", "post_attention_layernorm.bias"},
      {"attention.query.weight", "self_attn.q_proj.weight"}, {"attention.query.bias", "self_attn.q_proj.bias"},
      {"attention.key.weight", "self_attn.k_proj.weight"}, {"attention.key.bias", "self_attn.k_proj.bias"},
      {"attention.value.weight", "self_attn.v_proj.weight"}, {"attention.value.bias", "self_attn.v_proj.bias"},
      {"attention.output.weight", "self_attn.o_proj.weight"}, {"attention.output.bias", "self_attn.o_proj.bias"},
      {"attention.query_norm.weight", "self_attn.q_norm.weight"}, {"attention.key_norm.weight", "self_attn.k_norm.weight"},
      {"attention.sinks", "self_attn.sinks"},
      {"feed_forward.gate.weight", "mlp.gate_proj.weight"}, {"feed_forward.up.weight", "mlp.up_proj.weight"},
      {"feed_forward.down.weight", "mlp.down_proj.weight"}, {"feed_forward.gate.bias", "mlp.gate_proj.bias"},
      {"feed_forward.up.bias", "mlp.up_proj.bias"}, {"feed_forward.down.bias", "mlp.down_proj.bias"}};
  for (const auto& [name, hub] : same) rules.push_back({{ours + name}, theirs + hub});
  for (const auto& [part, hub] : {std::pair{"gate", "gate_proj"}, std::pair{"up", "up_proj"}, std::pair{"down", "down_proj"}}) {
    rules.push_back({{ours + "feed_forward.shared." + part}, shared + "." + hub + ".weight"});
    rules.push_back({{ours + "feed_forward.shared." + part + "_bias"}, shared + "." + hub + ".bias"});
  }
  rules.push_back({{ours + "feed_forward.shared.mix"}, theirs + "mlp.shared_expert_gate.weight"});
  return rules;
}

std::vector<NameRule> memory_names(const std::string& experts, const std::string& router) {
  const std::string ours = "layers.{i}.feed_forward.", theirs = "model.layers.{i}.";
  return {where_present({{ours + "router.weight"}, theirs + router}),
          where_present({{ours + "experts.gate", ours + "experts.up"}, theirs + experts + ".gate_up_proj", 1}),
          where_present({{ours + "experts.down"}, theirs + experts + ".down_proj"})};
}

std::vector<NameRule> joined(std::vector<NameRule> first, const std::vector<NameRule>& rest) {
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}
std::vector<HubKey> joined(std::vector<HubKey> first, const std::vector<HubKey>& rest) {
  // A family's own description of a key comes before the common one, whatever other spellings it adds.
  const auto spells = [](const HubKey& own, const std::string& name) { return ("|" + own.key + "|").find("|" + name + "|") != std::string::npos; };
  for (const HubKey& key : rest)
    if (std::none_of(first.begin(), first.end(), [&](const HubKey& own) { return spells(own, key.key.substr(0, key.key.find('|'))); }))
      first.push_back(key);
  return first;
}

// --- keys ------------------------------------------------------------------------------------------

std::vector<HubKey> decoder_keys() {
  return {count_key("vocab_size", "vocabulary"),
          count_key("hidden_size", "width"),
          count_key("num_hidden_layers", "layers"),
          count_key("num_attention_heads", "attention.heads"),
          count_key("num_key_value_heads", "attention.kv_heads").absent("0"),
          count_key("head_dim", "attention.head_dim").absent("0"),
          text_key("hidden_act", "mixture.expert.type dense.activation mixture.shared.0.expert.type").absent("silu").means(gated_activations()),
          count_key("max_position_embeddings", "context"),
          number_key("rms_norm_eps", "norm_eps").absent("1e-6"),
          flag_key("tie_word_embeddings", "tied_embeddings").absent("false"),
          number_key("initializer_range", "init_deviation").absent("0.02")};
}

std::vector<HubKey> softmax_mixture_keys(const std::string& experts, const std::string& k, const std::string& hidden) {
  return {count_key(experts, "mixture.experts"), count_key(k, "mixture.router.k"), count_key(hidden, "mixture.expert.hidden")};
}

HubKey norm_topk_key(const std::string& standard) {
  return flag_key("norm_topk_prob", "mixture.router.softmax").absent(standard).means({{"true", "kept"}, {"false", "all"}});
}

HubKey normalised_key(const std::string& standard) {
  return flag_key("norm_topk_prob", "mixture.combine.renormalise").absent(standard).means({{"true", "before_drop"}, {"false", "never"}});
}

std::vector<HubKey> sigmoid_mixture_keys() {
  return {count_key("n_group", "mixture.router.groups").absent("1"),
          count_key("topk_group", "mixture.router.chosen_groups").absent("1"),
          number_key("routed_scaling_factor", "mixture.combine.scale").absent("1.0"),
          normalised_key("true")};
}

std::vector<std::pair<std::string, std::string>> gated_activations() {
  return {{"silu", "swiglu"}, {"gelu", "geglu"}, {"gelu_pytorch_tanh", "geglu-tanh"}, {"relu", "reglu"}, {"sigmoid", "glu"},
          {"swish", "swiglu"}, {"gelu_new", "geglu-tanh"}, {"gelu_fast", "geglu-tanh"}};
}

// --- arrangements of layers ------------------------------------------------------------------------

void add_shared(Node& mixture, int64_t hidden) {
  Node network = Node::map();
  network["expert"] = Node(*mixture.find("expert"));
  network["expert"]["hidden"] = hub_count(hidden);
  mixture["shared"].append(std::move(network));
}

void arrange_fine_layers(const HubReader& config, Draft& draft, const FineLayers& standard) {
  const int64_t first = config.count("first_k_dense_replace", standard.dense, 0), frequency = config.count("moe_layer_freq", 1);
  const int64_t shared = config.is_null("n_shared_experts") ? 0 : config.count("n_shared_experts", standard.shared, 0);
  for (int64_t i = 0; i < draft.count(); ++i) {
    Node& mixture = draft.layers[static_cast<size_t>(i)].mixture;
    if (i < first || i % frequency != 0) {
      draft.make_dense(i);
      continue;
    }
    Node& router = mixture["router"];
    if (text_at(router, "type") == "sigmoid-topk" && integer_at(router, "groups") > 1) router["group_best"] = hub_count(2);
    if (shared > 0) add_shared(mixture, shared * integer_at(mixture, "expert.hidden"));
  }
}

void describe_fine_layers(const Node& composition, Node& config) {
  const int64_t first = first_layer(composition, has_mixture), layers = layers_of(composition);
  config["first_k_dense_replace"] = hub_count(first < 0 ? layers : first);
  // The stride from the first mixture to the next; a first that is no multiple of it reads back otherwise, and is refused.
  int64_t frequency = 1;
  if (first >= 0)
    while (first + frequency < layers && !find_at(composition, fmt::format("layers.{}.mixtures.0", first + frequency))) ++frequency;
  config["moe_layer_freq"] = hub_count(frequency);
  const std::string mixture = fmt::format("layers.{}.mixtures.0.", std::max<int64_t>(first, 0));
  const bool shared = find_at(composition, mixture + "shared.0.expert.hidden") != nullptr;
  config["n_shared_experts"] =
      hub_count(shared ? integer_at(composition, mixture + "shared.0.expert.hidden") / integer_at(composition, mixture + "expert.hidden") : 0);
}

std::vector<std::string> texts_by_layer(const HubReader& config, const Draft& draft, const char* key) {
  std::vector<std::string> list = config.texts(key);
  check(list.empty() || static_cast<int64_t>(list.size()) == draft.count(), "model.config", "{}: {} lists {} layers, but there are {}",
        config.config().mark().source, key, list.size(), draft.count());
  return list;
}

void arrange_windows(const HubReader& config, Draft& draft, int64_t standard, const std::function<bool(int64_t)>& slides) {
  const int64_t window = config.is_null("sliding_window") ? 0 : config.count("sliding_window", standard, 0);
  const std::vector<std::string> types = texts_by_layer(config, draft, "layer_types");
  for (int64_t i = 0; i < draft.count(); ++i) {
    const bool sliding = types.empty() ? slides(i) : types[static_cast<size_t>(i)] == "sliding_attention";
    check(types.empty() || sliding || types[static_cast<size_t>(i)] == "full_attention", "model.config",
          "{}: layer_types names '{}', which this family does not have", config.config().mark().source,
          types.empty() ? "" : types[static_cast<size_t>(i)]);
    if (sliding && window > 0) draft.layers[static_cast<size_t>(i)].attention["window"] = hub_count(window);
  }
}

void describe_windows(const Node& composition, Node& config) {
  config["layer_types"] = Node::list();
  config["sliding_window"] = Node();
  for (int64_t i = 0; i < layers_of(composition); ++i) {
    const int64_t window = integer_at(composition, fmt::format("layers.{}.attention.window", i));
    config["layer_types"].append(hub_text(window > 0 ? "sliding_attention" : "full_attention"));
    if (window > 0) config["sliding_window"] = hub_count(window);
  }
}

bool has_window(const Node& layer) { return integer_at(layer, "attention.window") > 0; }

int64_t describe_late_windows(const Node& composition, Node& config) {
  const auto& layers = find_at(composition, "layers")->items();
  const auto first = std::find_if(layers.begin(), layers.end(), has_window);
  if (first == layers.end()) return -1;
  if (!std::all_of(first, layers.end(), has_window))
    for (const Node& layer : layers) config["layer_types"].append(hub_text(has_window(layer) ? "sliding_attention" : "full_attention"));
  return first - layers.begin();
}

// --- the family ------------------------------------------------------------------------------------

int64_t layers_of(const Node& composition) { return static_cast<int64_t>(find_at(composition, "layers")->items().size()); }

int64_t first_layer(const Node& composition, const std::function<bool(const Node&)>& which) {
  const auto& layers = find_at(composition, "layers")->items();
  const auto found = std::find_if(layers.begin(), layers.end(), which);
  return found == layers.end() ? -1 : found - layers.begin();
}

bool has_mixture(const Node& layer) { return find_at(layer, "mixtures.0") != nullptr; }

std::vector<std::string> TableFamily::model_types() const {
  std::vector<std::string> types;
  for (const auto& kind : table_.kinds) types.push_back(kind.model_type);
  return types;
}

std::vector<std::string> TableFamily::architectures() const {
  std::vector<std::string> names;
  for (const auto& kind : table_.kinds) names.push_back(kind.architecture);
  return names;
}

const FamilyTable::Kind& TableFamily::kind(const std::string& model_type) const {
  const auto found = std::find_if(table_.kinds.begin(), table_.kinds.end(), [&](const auto& k) { return k.model_type == model_type; });
  check(found != table_.kinds.end(), "model.config", "model_type '{}' is not of this family", model_type);
  return *found;
}

namespace {

constexpr std::string_view kExpertType = "expert.type";

/// A value at its place in a part, if the part has that: kinds of experts without a name of their own are named by their activation.
void put(Node& part, const std::string& place, const Node& value) {
  if (place.starts_with("shared.") && part.find("shared") == nullptr) return;
  place_at(part, place) = value;
  if (!place.ends_with(kExpertType) || value.scalar() == "swiglu" || value.scalar() == "geglu") return;
  place_at(part, place) = Node("ffn-expert");
  place_at(part, place.substr(0, place.size() - 4) + "activation") = value;
}

}  // namespace

ModelOptions TableFamily::read(const Node& node, const HasTensor& has) const {
  const Node* type = node.find("model_type");
  check(type != nullptr && type->is_scalar(), "model.config", "{}: there is no model_type", node.where());
  const std::vector<std::string> known = model_types();
  const bool by_type = std::find(known.begin(), known.end(), type->scalar()) != known.end();
  const std::string model_type = by_type ? type->scalar() : known.front();  // chosen by its architecture
  const Node* inner = table_.wrapper.empty() ? nullptr : node.find(table_.wrapper);
  Node keys = inner && inner->is_map() ? *inner : node;
  keys.set_mark(node.mark());
  const HubReader config(keys, has);

  Draft draft;
  draft.model = Node::map();
  const Node fixed = parse_yaml(table_.fixed, "family " + model_type);
  for (const auto& [part, options] : fixed.entries()) {
    if (part == "model") draft.model = options;
    else draft.parts[part] = options;
  }
  draft.model.set_mark(node.mark());
  if (!table_.rope_theta.empty()) read_rotary(config, draft.model, table_.rope_theta);
  for (const HubKey& key : table_.keys) {
    const std::optional<Node> value = config.value(key);
    if (!value) continue;
    for (const std::string& place : words_of(key.places)) {
      const std::string head = head_of(place), rest = head == place ? "" : place.substr(head.size() + 1);
      if (rest.empty()) place_at(draft.model, place) = *value;
      else if (draft.parts.contains(head)) put(draft.parts[head], rest, *value);
      else if (draft.model.find(head) || head == "residual" || head == "rope_scaling" || head == "patches") place_at(draft.model, place) = *value;
    }
  }
  const auto layers = [&](const std::string& count, const std::string& prefix) {
    const int64_t number = integer_at(draft.model, count);
    check(number <= 1 << 12, "options.range", "{}: {} layers are more than the {} that are read", node.mark().source, number, 1 << 12);
    Draft::Layer layer;
    layer.attention = draft.part(prefix + "attention");
    if (draft.parts.contains(prefix + "mixture")) layer.mixture = draft.part(prefix + "mixture");
    else if (draft.parts.contains(prefix + "dense")) layer.dense = draft.part(prefix + "dense");
    return std::vector<Draft::Layer>(static_cast<size_t>(number), layer);
  };
  draft.layers = layers("layers", "");
  if (draft.model.find("encoder")) draft.encoder = layers("encoder.layers", "encoder_");
  if (draft.parts.contains("cross")) draft.model["cross_attention"] = draft.part("cross");
  if (table_.arrange) table_.arrange(config, model_type, draft);
  config.finish();
  return options_of(std::move(draft));
}

namespace {

constexpr std::string_view kEncoderPart = "encoder_";

/// What a place says in a composition; null when no layer has that part.
const Node* said_at(const Node& composition, const Node& fixed, const std::string& place) {
  const std::string head = head_of(place), rest = head == place ? "" : place.substr(head.size() + 1);
  if (head.starts_with(kEncoderPart)) {
    const Node* encoder = composition.find("encoder");
    if (encoder == nullptr) return nullptr;
    Node own = Node::map();
    own[head.substr(kEncoderPart.size())] = *fixed.find(head);
    return said_at(*encoder, own, place.substr(kEncoderPart.size()));
  }
  if (head == "cross") return find_at(composition, "cross_attention." + rest);
  if (head == "residual") return find_at(composition, "layers.0." + place);
  if (rest.empty() || fixed.find(head) == nullptr) return find_at(composition, place);
  const Node* type = find_at(*fixed.find(head), "type");
  const int64_t at = first_layer(composition, [&](const Node& layer) {
    if (is_mixture(head)) return has_mixture(layer);
    const Node* body = layer.find(is_feed_forward(head) ? "feed_forward" : head == "extra" ? "extra" : "attention");
    return body && body->is_map() && (!type || text_at(*body, "type") == type->scalar());
  });
  if (at < 0) return nullptr;
  const std::string inside = is_mixture(head) ? "mixtures.0" : is_feed_forward(head) ? "feed_forward" : head == "extra" ? "extra" : "attention";
  return find_at(composition, fmt::format("layers.{}.{}.{}", at, inside, rest));
}

}  // namespace

Node TableFamily::write(const Node& composition, const std::string& model_type) const {
  const auto& said = kind(model_type);
  Node config = Node::map();
  const Node fixed = parse_yaml(table_.fixed, "family");
  for (const HubKey& key : table_.keys) {
    const std::string name = key.key.substr(0, key.key.find('|'));
    const Node* value = nullptr;
    Node layers;
    for (const std::string& place : words_of(key.places)) {
      const Node* stack = place == "layers" ? &composition : place == "encoder.layers" ? composition.find("encoder") : nullptr;
      if (stack != nullptr) {
        layers = hub_count(layers_of(*stack));
        value = &layers;
      }
      if (value == nullptr) value = said_at(composition, fixed, place);
    }
    if (value == nullptr || !value->is_scalar()) {
      // Of a part that no layer has, every number says the same.
      const std::vector<std::string> places = words_of(key.places);
      if (!key.standard && key.kind == HubKey::Kind::count && !places.empty() && fixed.find(head_of(places[0]))) {
        place_at(config, name) = hub_count(std::max<int64_t>(1, static_cast<int64_t>(key.lowest)));
        continue;
      }
      check(key.standard.has_value(), "model.family_option", "the model has no {}, which {} needs for {}",
            words_of(key.places).empty() ? name : words_of(key.places)[0], model_type, name);
      if (key.standard->empty() || (key.kind == HubKey::Kind::count && *key.standard == "0" && key.lowest > 0)) continue;  // said by leaving it out
      Node standard(*key.standard);
      standard.set_quoted(key.kind == HubKey::Kind::text);
      place_at(config, name) = key.null_is_standard ? Node() : std::move(standard);
      continue;
    }
    std::string text = value->scalar();
    for (const std::string& place : words_of(key.places))
      if (text == "ffn-expert" && place.ends_with(kExpertType))
        if (const Node* activation = said_at(composition, fixed, place.substr(0, place.size() - 4) + "activation")) text = activation->scalar();
    bool null = key.null_is_standard && text == *key.standard;
    if (!key.words.empty()) {
      const auto found = std::find_if(key.words.begin(), key.words.end(), [&](const auto& word) { return word.second == text; });
      if (found != key.words.end()) text = found->first;
      else if (key.standard) text = *key.standard;  // reads back otherwise, and is named then
    }
    if (key.kind == HubKey::Kind::number && !null && text.find_first_of(".en") == std::string::npos) text += ".0";
    Node written(text);
    written.set_quoted(key.kind == HubKey::Kind::text);
    place_at(config, name) = null ? Node() : std::move(written);
  }
  if (!table_.rope_theta.empty()) write_rotary(composition, config);
  if (table_.describe) table_.describe(composition, model_type, config);
  Node whole = Node::map();
  whole["architectures"].append(hub_text(said.architecture));
  whole["model_type"] = hub_text(model_type);
  Node& into = table_.wrapper.empty() ? whole : whole[table_.wrapper];
  for (auto& [key, value] : config.entries()) into[key] = std::move(value);
  return whole;
}

void TableFamily::names(NameMap& map, const ModelOptions& options, const HasTensor& has) const {
  link_names(map, std::max(options.layers, options.encoder ? options.encoder->layers : 0), table_.names, has);
  if (!map.declares("head.weight") && map.declares("embedding.weight"))
    for (const char* head : {"lm_head.weight", "language_model.lm_head.weight"}) map.repeat("embedding.weight", head, NameMap::NoCopy::warn);
  for (const std::string& pattern : table_.ignored) {
    if (pattern.find("{i}") == std::string::npos) map.ignore(pattern);
    else for (int64_t i = 0; i < options.layers; ++i) map.ignore(filled(pattern, "{i}", i));
  }
  for (int64_t i = 0; i < options.layers; ++i) map.ignore(fmt::format("model.layers.{}.self_attn.rotary_emb.inv_freq", i));
  // Layers behind the last are for predicting further tokens.
  for (int64_t i = options.layers; i < options.layers + 8; ++i) map.ignore_below(fmt::format("model.layers.{}.", i));
}

}  // namespace switchyard
