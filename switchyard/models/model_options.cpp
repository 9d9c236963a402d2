#include "switchyard/models/model_options.h"

#include <algorithm>

namespace switchyard {

bool Placement::includes(int64_t layer, int64_t layers) const {
  if (!list.empty())
    return std::any_of(list.begin(), list.end(), [&](int64_t at) { return (at < 0 ? layers + at : at) == layer; });
  const int64_t start = offset < 0 ? every - 1 : offset;
  return layer >= start && (layer - start) % every == 0 && layer >= first_dense && (last == 0 || layer >= layers - last);
}

void Placement::describe(Fields<Placement>& f) {
  f.title("Placement", "Which layers, counted from 0; rules that are set must all agree.");
  f("every", &Placement::every, "every n-th layer").range(1, 1 << 20);
  f("offset", &Placement::offset, "first layer of `every`; -1 = every - 1: the second of two, the fourth of four").range(-1, 1 << 20);
  f("last", &Placement::last, "only among the last n layers; 0 = no limit").range(0, 1 << 20);
  f("first_dense", &Placement::first_dense, "not in the first n layers").range(0, 1 << 20);
  f("list", &Placement::list, "exactly these layers, negative from the end; empty = by the other rules");
}

void MixtureOptions::describe(Fields<MixtureOptions>& f) {
  f.title("Mixture", "A mixture of experts at a named site of the chosen layers.");
  f("at", &MixtureOptions::at, "the site: feed_forward, attention, attention.query, feed_forward.up, block, ...");
  f("layers", &MixtureOptions::layers, "which layers");
  f("join", &MixtureOptions::join, "how the mixture joins what stands at the site").choices({"replace", "add", "multiply"});
  MoeOptions::describe_fields(f);
}

void SiteOptions::describe(Fields<SiteOptions>& f) {
  f.title("Site", "A method around a named site of the chosen layers.");
  f("at", &SiteOptions::at, "the site: block, attention, feed_forward, attention.query, ...").required();
  f("layers", &SiteOptions::layers, "which layers");
  f("around", &SiteOptions::around, "the method").required();
}

void ResidualOptions::describe(Fields<ResidualOptions>& f) {
  using R = ResidualOptions;
  f.title("Residual", "How much of its stream a sub-layer keeps and how much of its result it adds.");
  f("attention_keep", &R::attention_keep, "multiplies the stream where attention is added");
  f("attention_add", &R::attention_add, "multiplies what attention adds");
  f("feed_forward_keep", &R::feed_forward_keep, "multiplies the stream where the feed-forward is added");
  f("feed_forward_add", &R::feed_forward_add, "multiplies what the feed-forward adds");
}

void LayerVariant::describe(Fields<LayerVariant>& f) {
  f.title("Layer variant", "Layers that differ from the model's attention or feed-forward.");
  f("layers", &LayerVariant::layers, "which layers");
  f("attention", &LayerVariant::attention, "their attention; unset = the model's, none = they have none");
  f("feed_forward", &LayerVariant::feed_forward, "their feed-forward; unset = the model's, none = they have none");
  f("extra", &LayerVariant::extra, "their third sub-layer; unset = the model's, none = they have none");
  f("residual", &LayerVariant::residual, "their residual sums; unset = the model's");
}

void ModelOptions::describe(Fields<ModelOptions>& f) {
  using M = ModelOptions;
  f.title("Model", "A transformer: embedding, blocks, final norm, head; mixtures and other methods at its sites.");
  f("vocabulary", &M::vocabulary, "token ids V; 0 = the tokenizer's size").range(0, 1 << 24);
  f("width", &M::width, "width D of a row").range(1, 1 << 20);
  f("layers", &M::layers, "blocks").range(0, 1 << 16);
  f("context", &M::context, "longest sequence").range(1, 1 << 24).unit("tokens");
  f("causal", &M::causal, "rows see earlier rows only; false = an encoder, which cannot generate");
  f("norm", &M::norm, "RMSNorm or LayerNorm, RMSNorm with weight 1 + w, LayerNorm without a bias")
      .choices({"rms", "layer", "rms_centred", "layer_unbiased"});
  f("norm_eps", &M::norm_eps, "added under the root of every norm").range(0, 1);
  f("final_norm_eps", &M::final_norm_eps, "the same of the norm before the head; unset = norm_eps").range(0, 1);
  f("positions", &M::positions, "rotary, a learned vector a position, or none").choices({"rope", "learned", "none"});
  f("rope_theta", &M::rope_theta, "base of the rotary frequencies").range(1);
  f("rope_fraction", &M::rope_fraction, "share of a head's coordinates that turn").range(0, 1);
  f("rope_pairs", &M::rope_pairs, "coordinates that turn together: i with i + n/2, or 2i with 2i + 1").choices({"half", "adjacent"});
  f("rope_scaling", &M::rope_scaling, "lower rotary frequencies for long contexts");
  f("block", &M::block, "attention, then feed-forward, each behind its norm; both beside each other behind one norm; norms "
    "behind each, or before and behind; the normed rows as the stream; norms of the sums; or the feed-forward on the "
    "block's input with `extra` between")
      .choices({"pre_norm", "parallel", "post_norm", "sandwich", "keep_norm", "after_norm", "beside"});
  f("attention", &M::attention, "the attention of every layer");
  f("feed_forward", &M::feed_forward, "the feed-forward of every layer");
  f("extra", &M::extra, "a third sub-layer of every layer, with its norm; none = there is none");
  f("residual", &M::residual, "the residual sums of every layer");
  f("variants", &M::variants, "layers with another attention or feed-forward; later entries win");
  f("tied_embeddings", &M::tied_embeddings, "the head multiplies by the embedding");
  f("head_bias", &M::head_bias, "a bias on the logits");
  f("embedding_scale", &M::embedding_scale, "multiplies embedded tokens").range(0);
  f("logit_scale", &M::logit_scale, "multiplies logits").range(0);
  f("logit_cap", &M::logit_cap, "logits z become cap * tanh(z / cap); 0 = never").range(0);
  f("init_deviation", &M::init_deviation, "standard deviation of initial weights").range(0);
  f("mixtures", &M::mixtures, "mixtures of experts");
  f("sites", &M::sites, "other methods at sites: adapters, depth routing, probes");
}

namespace {

const Choice<Body>& body_of(const ModelOptions& options, int64_t layer, const Choice<Body>& usual,
                            std::optional<Choice<Body>> LayerVariant::*which) {
  const Choice<Body>* found = &usual;
  for (const LayerVariant& variant : options.variants)
    if (variant.*which && variant.layers.includes(layer, options.layers)) found = &*(variant.*which);
  return *found;
}

}  // namespace

const Choice<Body>& ModelOptions::attention_of(int64_t layer) const {
  return body_of(*this, layer, attention, &LayerVariant::attention);
}

const Choice<Body>& ModelOptions::feed_forward_of(int64_t layer) const {
  return body_of(*this, layer, feed_forward, &LayerVariant::feed_forward);
}

const Choice<Body>& ModelOptions::extra_of(int64_t layer) const { return body_of(*this, layer, extra, &LayerVariant::extra); }

const ResidualOptions& ModelOptions::residual_of(int64_t layer) const {
  const ResidualOptions* found = &residual;
  for (const LayerVariant& variant : variants)
    if (variant.residual && variant.layers.includes(layer, layers)) found = &*variant.residual;
  return *found;
}

}  // namespace switchyard

SWITCHYARD_REGISTER(placements) {
  registry.add_card({.slug = "placement", .name = "MoE layer frequency and schedule", .paper = "Lepikhin et al., GShard; Zoph et al., ST-MoE",
                     .year = 2020, .section = "4.2.2", .room = "models", .coupling = "none",
                     .line = "which layers hold a mixture: `layers: {every: 2}`, `{last: 6}`, `{list: [3, -1]}`",
                     .recipe = "recipes/methods/placement.yaml"});
  registry.add_card({.slug = "first-layer-dense", .name = "First layers dense", .paper = "Dai et al., DeepSeekMoE", .year = 2024,
                     .section = "4.2.2", .room = "models", .coupling = "none",
                     .line = "the first layers, whose load balances slowest, stay dense: `layers: {first_dense: 1}`",
                     .recipe = "recipes/methods/first-layer-dense.yaml"});
}
