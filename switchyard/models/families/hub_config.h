// What config.json files of decoder families have in common: keys, rotary settings in two spellings, tensor names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"
#include "switchyard/models/families/name_map.h"
#include "switchyard/models/model_options.h"

namespace switchyard {

/// Keys of every decoder family, by their published names. A family's config extends it and describes all its keys; the one
/// description reads and writes config.json.
struct HubConfig {
  int64_t vocab_size = 0, hidden_size = 0, num_hidden_layers = 0, num_attention_heads = 0;
  std::optional<int64_t> num_key_value_heads, head_dim;
  std::string hidden_act = "silu";
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  RotaryScaling scaling;  ///< from rope_parameters or rope_scaling, whose keys have names of their own

  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("vocab_size", &T::vocab_size, "vocabulary V").range(1, 1 << 24).required();
    f("hidden_size", &T::hidden_size, "width D").range(1, 1 << 20).required();
    f("num_hidden_layers", &T::num_hidden_layers, "blocks").range(1, 1 << 12).required();
    f("num_attention_heads", &T::num_attention_heads, "query heads").range(1, 1 << 16).required();
    f("num_key_value_heads", &T::num_key_value_heads, "key and value heads; null = as many as query heads").range(1, 1 << 16);
    f("head_dim", &T::head_dim, "width of a head; null = hidden_size / num_attention_heads").range(1, 1 << 16);
    f("hidden_act", &T::hidden_act, "activation").choices({"silu"});
    f("max_position_embeddings", &T::max_position_embeddings, "longest sequence").range(1, 1 << 24).required();
    f("rms_norm_eps", &T::rms_norm_eps, "added under the root of every norm").range(0, 1);
    f("rope_theta", &T::rope_theta, "base of the rotary frequencies").range(1);
    f("tie_word_embeddings", &T::tie_word_embeddings, "the head multiplies by the embedding");
    f("initializer_range", &T::initializer_range, "standard deviation of initial weights").range(0);
  }
};

/// Only the keys that `described` has, with rope_theta from wherever it stands. Keys that are neither described nor known to be
/// without effect are named in a warning.
Node known_keys(const Node& config, const Description& described);
/// From rope_parameters or rope_scaling; throws model.config for kinds that cannot be computed.
RotaryScaling rotary_scaling(const Node& config);

template <typename T>
T read_hub_config(const Node& config) {
  T read = read_options<T>(known_keys(config, description_of<T>()));
  read.scaling = rotary_scaling(config);
  return read;
}

/// The keys of `config` with "model_type" and "architectures" before them and the rotary settings in both spellings.
Node hub_config(Node keys, const Description& described, const RotaryScaling& scaling, const std::string& model_type,
                const std::string& architecture);
template <typename T>
Node write_hub_config(const T& config, const std::string& model_type, const std::string& architecture) {
  return hub_config(write_options(config), description_of<T>(), config.scaling, model_type, architecture);
}

/// The options that follow from the common keys; attention is "gqa" with heads.
ModelOptions common_options(const HubConfig& config);
/// A mixture of SwiGLU experts of width `hidden` in place of the feed-forward network, k a token; the weights are probabilities
/// over all experts, divided by their sum when `renormalised`. Throws model.config when k > experts.
MixtureOptions swiglu_mixture(int64_t experts, int64_t hidden, int64_t k, bool renormalised);
Choice<Body> swiglu_feed_forward(int64_t hidden);
/// Whether the weights of layer `layer`'s first mixture sum to 1.
bool weights_sum_to_one(const Node& composition, int64_t layer);
/// The common keys of a composition.
void common_keys(const Node& composition, HubConfig& config);

/// Reading a composition: "layers.0.attention.heads". Throws model.family_option naming the path when it is absent or of
/// another kind.
int64_t integer_at(const Node& composition, const std::string& path);
double number_at(const Node& composition, const std::string& path);
bool flag_at(const Node& composition, const std::string& path);
std::string text_at(const Node& composition, const std::string& path);
/// Null when there is no such path.
const Node* find_at(const Node& composition, const std::string& path);

/// How a mixture's tensors are called inside a layer.
struct MixtureNames {
  std::string router;                      ///< "mlp.gate.weight"
  std::string experts;                     ///< "mlp.experts"
  std::string gate, up, down;              ///< "gate_proj", ...: experts.3.gate_proj.weight
};
inline const MixtureNames kMlpMixture{"mlp.gate.weight", "mlp.experts", "gate_proj", "up_proj", "down_proj"};
/// Embedding, norms, attention, dense feed-forward networks, mixtures in either layout (a tensor an expert, or
/// experts.gate_up_proj [E, 2F, D] and experts.down_proj [E, D, F]), and head, as Llama and its descendants name them.
/// has: see Family::names.
void link_decoder(NameMap& map, const ModelOptions& options, const MixtureNames& names, const HasTensor& has);

}  // namespace switchyard
