// A family that is a table: fixed options, the keys of its config.json, the names of its tensors, and for what is truly its own
// two functions that arrange layers, one for each direction. One file a family.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "switchyard/models/families/family.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard {

/// A model being put together: the model's own options, its parts by name, and which of them each layer has.
struct Draft {
  Node model;
  std::map<std::string, Node> parts;          ///< "attention", "mixture", "dense", "cross", and further bodies of the family's
  struct Layer { Node attention, dense, mixture, extra, residual; };  ///< null = none
  std::vector<Layer> layers;                  ///< "attention", and "mixture" where there is one, else "dense"
  /// Of an encoder, where model has "encoder": the parts "encoder_attention", "encoder_mixture" or "encoder_dense".
  std::vector<Layer> encoder;

  const Node& part(const std::string& name) const { return parts.at(name); }
  void make_dense(int64_t layer) {
    layers[static_cast<size_t>(layer)].mixture = Node();
    layers[static_cast<size_t>(layer)].dense = part("dense");
  }
  void make_dense_encoder(int64_t layer) {
    encoder[static_cast<size_t>(layer)].mixture = Node();
    encoder[static_cast<size_t>(layer)].dense = part("encoder_dense");
  }
  int64_t count() const { return static_cast<int64_t>(layers.size()); }
};
/// Options of a draft; throws options.* naming the file, and model.config.
ModelOptions options_of(Draft draft);

/// How tensors correspond. In names, {i} is a layer; {e} in `theirs` an expert of a stack. Several of ours lie one after
/// another along `dim` of theirs; `transposed` swaps the last two axes of theirs, `interleaved` lets parts alternate.
struct NameRule {
  std::vector<std::string> ours;
  std::string theirs;
  int64_t dim = 0;               ///< of ours, without the experts' axis where {e} or `flat` takes it away
  bool transposed = false, interleaved = false;
  bool flat = false;             ///< the experts' axis and the next are one axis of theirs
  int64_t unit = -1;             ///< an axis of length 1 of theirs that ours has not
  bool if_present = false;       ///< one layout of several: only where the file has it
};
inline NameRule where_present(NameRule rule) { rule.if_present = true; return rule; }
inline NameRule transposed(NameRule rule) { rule.transposed = true; return rule; }
inline NameRule interleaved(NameRule rule) { rule.interleaved = true; return rule; }
/// The rules in order; a parameter keeps the first that fits. has: see Family::names.
void link_names(NameMap& map, int64_t layers, const std::vector<NameRule>& rules, const HasTensor& has);
/// Embedding, norms, attention, dense feed-forward networks and head as Llama and its descendants name them; experts
/// as `experts`.{e}.`gate`.weight, or fused in file layouts of library 5.
struct LlamaNames {
  std::string router = "mlp.gate.weight", experts = "mlp.experts", gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::string shared = "mlp.shared_expert";
  std::string prefix = "model.";
};
std::vector<NameRule> llama_names(const LlamaNames& names = {});
/// What library 5 calls a mixture in memory, for files that were written as it lies there.
std::vector<NameRule> memory_names(const std::string& experts = "mlp.experts", const std::string& router = "mlp.gate.weight");
/// An encoder's and a decoder's copies of the embedding below `prefix`. They are written where files have a head of its own: library 5 then
/// reads them, and fills them at random when they are missing. copies_first: where a file has a head of its own and both copies, these are
/// the embedding, and what the library leaves aside is left aside.
void copy_embedding(NameMap& map, const std::string& prefix, const HasTensor& has, bool copies_first);
/// `first`, then those of `rest`.
std::vector<NameRule> joined(std::vector<NameRule> first, const std::vector<NameRule>& rest);
std::vector<HubKey> joined(std::vector<HubKey> first, const std::vector<HubKey>& rest);

/// Keys of nearly every decoder; attention is "gqa".
std::vector<HubKey> decoder_keys();
/// Experts, k of them a token, their width.
std::vector<HubKey> softmax_mixture_keys(const std::string& experts, const std::string& k, const std::string& hidden);
/// Whether the weights that a softmax gave a token are divided by their sum, which is a softmax over the kept logits.
HubKey norm_topk_key(const std::string& standard);

/// What gated networks are by the activation of their gates.
std::vector<std::pair<std::string, std::string>> gated_activations();

/// Whether sigmoids are divided by the sum of those that were chosen.
HubKey normalised_key(const std::string& standard);
/// DeepSeek-V3's choice by sigmoids within groups, for "sigmoid-topk".
std::vector<HubKey> sigmoid_mixture_keys();

struct FamilyTable {
  struct Kind { std::string model_type, architecture; };
  std::vector<Kind> kinds;
  std::string fixed;                          ///< YAML: model, attention, dense, mixture, ...: what no key says
  std::vector<HubKey> keys;
  std::vector<NameRule> names;
  std::vector<std::string> ignored = {};      ///< tensors that may be in a file and say nothing new; {i} as above
  std::string rope_theta = "10000";           ///< of files that do not say it; empty = no rotary positions
  std::string wrapper = {};                   ///< the map of config.json that holds the keys ("text_config"), or none
  /// After the table: layers that differ. `type` is the model type.
  std::function<void(const HubReader&, const std::string& type, Draft&)> arrange = {};
  /// The same back: keys that the table does not say.
  std::function<void(const Node& composition, const std::string& type, Node& config)> describe = {};
};

class TableFamily : public Family {
 public:
  explicit TableFamily(FamilyTable table) : table_(std::move(table)) {}
  std::vector<std::string> model_types() const override;
  std::vector<std::string> architectures() const override;
  ModelOptions read(const Node& config) const override { return read(config, {}); }
  ModelOptions read(const Node& config, const HasTensor& has) const override;
  Node write(const Node& composition, const std::string& model_type) const override;
  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override;

 private:
  const FamilyTable::Kind& kind(const std::string& model_type) const;
  FamilyTable table_;
};

/// Adds a network that every token passes: one of the mixture's experts, but so wide.
void add_shared(Node& mixture, int64_t hidden);
/// DeepSeek's arrangement of layers: the first ones dense, then every n-th with a mixture and one shared network as wide as all
/// shared experts; a group of experts is as good as its two best.
struct FineLayers { int64_t dense = 0, shared = 0; };  ///< of files that do not say them
void arrange_fine_layers(const HubReader& config, Draft& draft, const FineLayers& standard);
void describe_fine_layers(const Node& composition, Node& config);
/// What a file lists layer by layer, or nothing; throws model.config when it lists another number of layers.
std::vector<std::string> texts_by_layer(const HubReader& config, const Draft& draft, const char* key);
/// layer_types with sliding_window; window, slides: of files that do not say them (a null is no window).
void arrange_windows(const HubReader& config, Draft& draft, int64_t window, const std::function<bool(int64_t)>& slides);
void describe_windows(const Node& composition, Node& config);
/// Windows from a layer on: that layer, -1 when there are none. Others than all behind it are listed in layer_types.
int64_t describe_late_windows(const Node& composition, Node& config);
bool has_window(const Node& layer);

/// The first layer whose `what` ("attention", "mixtures") satisfies; -1 when none does.
int64_t first_layer(const Node& composition, const std::function<bool(const Node& layer)>& which);
bool has_mixture(const Node& layer);
/// Layers of a composition.
int64_t layers_of(const Node& composition);

}  // namespace switchyard
