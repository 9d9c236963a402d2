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

template <typename T>
void StackOptions::describe_fields(Fields<T>& f) {
  f("layers", &T::layers, "blocks").range(0, 1 << 16);
  f("causal", &T::causal, "rows see earlier rows only; false = an encoder, which cannot generate");
  f("norm", &T::norm, "RMSNorm or LayerNorm, RMSNorm with weight 1 + w, LayerNorm without a bias")
      .choices({"rms", "layer", "rms_centred", "layer_unbiased"});
  f("norm_eps", &T::norm_eps, "added under the root of every norm").range(0, 1);
  f("embedding_norm", &T::embedding_norm, "a norm of the embedded rows");
  f("final_norm", &T::final_norm, "a norm behind the last block");
  f("final_norm_eps", &T::final_norm_eps, "its norm_eps; unset = norm_eps").range(0, 1);
  f("positions", &T::positions, "rotary, a learned vector a position, sines and cosines, a learned bias on the scores by distance, or none")
      .choices({"rope", "learned", "sinusoidal", "relative", "none"});
  f("rope_theta", &T::rope_theta, "base of the rotary frequencies").range(1);
  f("rope_fraction", &T::rope_fraction, "share of a head's coordinates that turn").range(0, 1);
  f("rope_pairs", &T::rope_pairs, "coordinates that turn together: i with i + n/2, or 2i with 2i + 1").choices({"half", "adjacent"});
  f("rope_scaling", &T::rope_scaling, "lower rotary frequencies for long contexts");
  f("position_offset", &T::position_offset, "positions: sinusoidal: the number of a sequence's first row").range(0, 1 << 24);
  f("relative_buckets", &T::relative_buckets, "positions: relative: buckets of distances, half of them exact; both directions share them "
    "where rows see later ones").range(2, 1 << 16);
  f("relative_distance", &T::relative_distance, "positions: relative: distances from here on share the last bucket").range(1, 1 << 24).unit("tokens");
  f("block", &T::block, "attention, then feed-forward, each behind its norm; both beside each other behind one norm; norms "
    "behind each, or before and behind; the normed rows as the stream; norms of the sums; or the feed-forward on the "
    "block's input with `extra` between")
      .choices({"pre_norm", "parallel", "post_norm", "sandwich", "keep_norm", "after_norm", "beside"});
  f("attention", &T::attention, "the attention of every layer");
  f("feed_forward", &T::feed_forward, "the feed-forward of every layer");
  f("extra", &T::extra, "a third sub-layer of every layer, with its norm; none = there is none");
  f("residual", &T::residual, "the residual sums of every layer");
  f("variants", &T::variants, "layers with another attention or feed-forward; later entries win");
  f("init_deviation", &T::init_deviation, "standard deviation of initial weights").range(0);
  f("mixtures", &T::mixtures, "mixtures of experts");
  f("sites", &T::sites, "other methods at sites: adapters, depth routing, probes");
}

void EncoderOptions::describe(Fields<EncoderOptions>& f) {
  f.title("Encoder", "A stack that reads one sequence whole, for a decoder that writes another; it shares the model's width, context and embedding.");
  f("start_token", &EncoderOptions::start_token, "the token that the decoder begins with").range(0, 1 << 24);
  describe_fields(f);
}

void PatchOptions::describe(Fields<PatchOptions>& f) {
  f.title("Patches", "Images as rows: square patches, row by row, behind one learned row.");
  f("image", &PatchOptions::image, "height and width of an image").range(1, 1 << 16).unit("pixels");
  f("patch", &PatchOptions::patch, "height and width of a patch").range(1, 1 << 16).unit("pixels");
  f("channels", &PatchOptions::channels, "numbers a pixel").range(1, 1 << 10);
}

void ModelOptions::describe(Fields<ModelOptions>& f) {
  using M = ModelOptions;
  f.title("Model", "A transformer: embedding, blocks, final norm, head; mixtures and other methods at its sites. With an encoder, "
    "the blocks are those of the decoder.");
  f("vocabulary", &M::vocabulary, "token ids V; 0 = the tokenizer's size").range(0, 1 << 24);
  f("width", &M::width, "width D of a row").range(1, 1 << 20);
  f("context", &M::context, "longest sequence").range(1, 1 << 24).unit("tokens");
  describe_fields(f);
  f("encoder", &M::encoder, "a stack that reads a sequence whole, at whose rows cross_attention looks; unset = there is none");
  f("cross_attention", &M::cross_attention, "the sub-layer between attention and feed-forward that looks at the encoder's rows");
  f("patches", &M::patches, "the model reads images instead of tokens; unset = tokens");
  f("token_types", &M::token_types, "kinds of tokens with a vector each, by the fact token_type; 0 = there are none").range(0, 1 << 16);
  f("tied_embeddings", &M::tied_embeddings, "the head multiplies by the embedding");
  f("head_transform", &M::head_transform, "a map with a bias and that activation before the head")
      .choices({"none", "tanh", "relu", "gelu", "gelu-tanh", "silu"});
  f("head_norm", &M::head_norm, "a norm behind that map");
  f("head_bias", &M::head_bias, "a bias on the logits");
  f("classes", &M::classes, "the head names the class of a sequence by its first row; 0 = a token for every row").range(0, 1 << 24);
  f("embedding_scale", &M::embedding_scale, "multiplies embedded tokens").range(0);
  f("logit_scale", &M::logit_scale, "multiplies logits").range(0);
  f("logit_cap", &M::logit_cap, "logits z become cap * tanh(z / cap); 0 = never").range(0);
}

namespace {

const Choice<Body>& body_of(const StackOptions& options, int64_t layer, const Choice<Body>& usual,
                            std::optional<Choice<Body>> LayerVariant::*which) {
  const Choice<Body>* found = &usual;
  for (const LayerVariant& variant : options.variants)
    if (variant.*which && variant.layers.includes(layer, options.layers)) found = &*(variant.*which);
  return *found;
}

}  // namespace

const Choice<Body>& StackOptions::attention_of(int64_t layer) const {
  return body_of(*this, layer, attention, &LayerVariant::attention);
}

const Choice<Body>& StackOptions::feed_forward_of(int64_t layer) const {
  return body_of(*this, layer, feed_forward, &LayerVariant::feed_forward);
}

const Choice<Body>& StackOptions::extra_of(int64_t layer) const { return body_of(*this, layer, extra, &LayerVariant::extra); }

const ResidualOptions& StackOptions::residual_of(int64_t layer) const {
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
