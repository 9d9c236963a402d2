#include "switchyard/models/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/contract/adaptation.h"
#include "switchyard/experts/feed_forward/feed_forward.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {

/// The state that holds a sequence's token ids.
static constexpr const char* kTokens = "token_id";

Decoder::Decoder(ModelOptions options) : options_(std::move(options)) {
  const ModelOptions& o = options_;
  check(o.vocabulary > 0 || o.patches, "model.vocabulary",
        "the model's vocabulary is {}; set model.vocabulary, or give a tokenizer to take it from", o.vocabulary);
  check(!o.encoder || o.cross_attention, "model.encoder",
        "the model has an encoder, but nothing looks at its rows; set model.cross_attention: {{type: cross-attention, ...}}");
  check(o.encoder || !o.cross_attention, "model.encoder",
        "the model has cross_attention, but no encoder whose rows it could look at; set model.encoder");
  const int64_t context = o.patches ? o.patches->count() + 1 : o.context;
  check(!o.patches || (o.patches->image % o.patches->patch == 0 && !o.causal && !o.encoder && o.classes > 0), "model.patches",
        "a model of images has whole patches (image {}, patch {}), causal: false, no encoder, and classes to name",
        o.patches ? o.patches->image : 0, o.patches ? o.patches->patch : 0);
  check(!o.tied_embeddings || o.classes == 0, "model.classes", "a head over {} classes cannot be tied to the embedding; set tied_embeddings: false",
        o.classes);
  if (o.encoder) encoder_.emplace(*o.encoder, Choice<Body>(), "encoder.", Stack::Size{o.width, context});
  stack_.emplace(o, o.cross_attention, "", Stack::Size{o.width, context});
  declare();
  if (encoder_) encoder_->find_routings(routings_);
  stack_->find_routings(routings_);
}

void Decoder::declare() {
  const ModelOptions& o = options_;
  const Init init = Init::normal(o.init_deviation);
  if (o.patches) {
    const Schema place = schema_.in("patches");
    patch_weight_ = place.add("weight", {o.width, o.patches->channels, o.patches->patch, o.patches->patch}, Role::embedding, init);
    patch_bias_ = place.add("bias", {o.width}, Role::bias, Init::zeros());
    first_row_ = place.add("first", {1, o.width}, Role::embedding, init);
  } else {
    embedding_ = schema_.in("embedding").add("weight", {o.vocabulary, o.width}, Role::embedding, init);
  }
  if (o.token_types > 0) token_types_ = schema_.in("token_types").add("weight", {o.token_types, o.width}, Role::embedding, init);
  if (encoder_) encoder_->declare(schema_.in("encoder"));
  stack_->declare(schema_);
  const Schema head = schema_.in("head");
  if (o.head_transform != "none") {
    transform_ = head.in("transform").add("weight", {o.width, o.width}, Role::head, init);
    transform_bias_ = head.in("transform").add("bias", {o.width}, Role::bias, Init::zeros());
  }
  if (o.head_norm) {
    head_norm_ = make_norm(o.norm, o.width, o.norm_eps);
    head_norm_->declare(head.in("norm"));
  }
  if (!o.tied_embeddings) head_ = head.add("weight", {o.outputs(), o.width}, Role::head, init);
  if (o.head_bias) head_bias_ = head.add("bias", {o.outputs()}, Role::bias, Init::zeros());
}

std::vector<StateSpec> Decoder::states() const {
  std::vector<StateSpec> list = stack_->states();
  list.push_back({.name = kTokens, .kind = StateSpec::Kind::per_token, .shape = {}});
  return list;
}

Reach Decoder::reach(const Overrides& overrides, Phase phase) const { return stack_->reach(overrides, phase); }

namespace {

/// The place whose decision `station` executes: itself, or the last one before it that decides under its name.
const RoutingStation* decider(const std::vector<PlacedRouting>& routings, const RoutingStation* station) {
  const RoutingStation* found = station;
  for (const PlacedRouting& placed : routings) {
    if (placed.station.get() == station) break;
    if (!station->decides() && placed.station->decides() && placed.station->options().share_routing == station->options().share_routing)
      found = placed.station.get();
  }
  return found->decides() ? found : nullptr;
}

}  // namespace

int64_t Decoder::active_parameters() const {
  double idle = 0;
  for (const Parameter& parameter : schema_.all()) {
    const ParamSpec& spec = parameter.spec();
    if (spec.expert_dim < 0 || spec.role == Role::router || spec.buffer) continue;
    const RoutingStation* owner = nullptr;  // the innermost place that the parameter lies in
    for (const PlacedRouting& placed : routings_)
      if (spec.name.starts_with(placed.station->site() + ".") &&
          (!owner || placed.station->site().size() > owner->site().size()))
        owner = placed.station.get();
    if (owner) owner = decider(routings_, owner);
    if (!owner) continue;
    const double experts = static_cast<double>(owner->experts());
    idle += static_cast<double>(parameter.count()) * (1 - owner->router().engaged(owner->experts()) / experts);
  }
  return schema_.count() - static_cast<int64_t>(idle + 0.5);
}

namespace {

/// [rows]: the id before each row's, also where that lies in the cache; -1 before a sequence's first.
at::Tensor previous_ids(const at::Tensor& ids, const Segments& segments, StateStore& state) {
  at::Tensor previous = at::empty_like(ids);
  for (int64_t s = 0; s < segments.count(); ++s) {
    const int64_t begin = segments.begin[s], length = segments.length(s), past = segments.past_of(s);
    if (length == 0) continue;
    const at::Tensor all = state.append(kTokens, segments.sequence_of(s), ids.narrow(0, begin, length));
    check(all.size(0) == past + length, "state.length", "the state of sequence {} holds {} tokens, but {} are said to have come before",
          segments.sequence_of(s), all.size(0) - length, past);
    const at::Tensor here = previous.narrow(0, begin, length);
    const int64_t known = std::min(past, int64_t{1});  // rows before the first one that the cache can name
    if (known == 0) here.narrow(0, 0, 1).fill_(-1);
    here.narrow(0, 1 - known, length - 1 + known).copy_(all.narrow(0, past - known, length - 1 + known));
  }
  return previous;
}

/// The head's activation by the name that the options give it.
at::Tensor transformed(const at::Tensor& x, const std::string& activation) {
  return activation == "tanh" ? x.tanh() : kernels::activate(x, {}, {.kind = activation_named(activation)});
}

}  // namespace

at::Tensor Decoder::embed(const at::Tensor& ids, const Context& context) const {
  if (options_.patches) return embed_patches(ids, context);
  check(ids.dim() == 1 && ids.size(0) == context.facts.segments.rows(), "model.rows",
        "{} token ids came with segments of {} rows", ids.numel(), context.facts.segments.rows());
  if (ids.size(0) > 0) {
    const int64_t lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
    check(lowest >= 0 && highest < options_.vocabulary, "model.token_id",
          "token ids run from {} to {}, but the vocabulary has {} entries", lowest, highest, options_.vocabulary);
  }
  at::Tensor x = embedding(ids, embedding_, context);
  if (options_.embedding_scale != 1) x = x * options_.embedding_scale;
  return token_types_ ? x + embed_types(ids, context) : x;
}

at::Tensor Decoder::embed_types(const at::Tensor& ids, const Context& context) const {
  const at::Tensor type = context.facts.has(kTokenType) ? context.facts.row(kTokenType, "token types").to(at::kLong) : at::zeros_like(ids);
  if (type.size(0) > 0)
    check(type.min().item<int64_t>() >= 0 && type.max().item<int64_t>() < options_.token_types, "model.token_type",
          "token types run from {} to {}, but the model has {}", type.min().item<int64_t>(), type.max().item<int64_t>(), options_.token_types);
  return embedding(type, token_types_, context);
}

at::Tensor Decoder::embed_patches(const at::Tensor& images, const Context& context) const {
  const PatchOptions& o = *options_.patches;
  check(images.dim() == 4 && images.size(1) == o.channels && images.size(2) == o.image && images.size(3) == o.image &&
            images.is_floating_point(), "model.images",
        "this model reads images [B, {}, {}, {}] of floats, not a tensor of {} dimensions and {} numbers", o.channels, o.image, o.image,
        images.dim(), images.numel());
  const int64_t batch = images.size(0), side = o.image / o.patch, width = options_.width;
  check(context.facts.segments.rows() == batch * context_rows(), "model.rows", "{} images of {} rows came with segments of {} rows", batch,
        context_rows(), context.facts.segments.rows());
  // [B, channels, side, patch, side, patch] → one row of numbers a patch.
  const at::Tensor rows = images.to(context[patch_weight_].scalar_type()).view({batch, o.channels, side, o.patch, side, o.patch})
                              .permute({0, 2, 4, 1, 3, 5}).reshape({batch * side * side, o.channels * o.patch * o.patch});
  const at::Tensor patches = kernels::linear(rows, context[patch_weight_].view({width, -1}), context[patch_bias_]).view({batch, side * side, width});
  const at::Tensor first = context[first_row_].unsqueeze(0).expand({batch, 1, width});
  return at::cat({first.to(patches.scalar_type()), patches}, 1).view({batch * context_rows(), width});
}

at::Tensor Decoder::forward(const at::Tensor& ids, const Context& outer, std::vector<at::Tensor>* hidden) const {
  Facts facts = outer.facts;
  const bool tokens = ids.dim() == 1 && ids.size(0) == facts.segments.rows();
  if (tokens) facts.set_row("token_id", ids);
  facts.segments.causal = options_.causal;
  if (outer.state && tokens) facts.set_row("previous_token_id", previous_ids(ids, facts.segments, *outer.state));
  const Context context = outer.with(facts);
  return stack_->forward(embed(ids, context), context, hidden);
}

Memory Decoder::encode(const at::Tensor& ids, const Context& outer, std::vector<at::Tensor>* hidden) const {
  check(encoder_.has_value(), "model.encoder", "this model has no encoder");
  Facts facts = outer.facts;
  facts.segments.causal = options_.encoder->causal;
  if (ids.dim() == 1 && ids.size(0) == facts.segments.rows()) facts.set_row("token_id", ids);
  const Context context = outer.with(facts);
  return {encoder_->forward(embed(ids, context), context, hidden), facts.segments};
}

at::Tensor Decoder::logits(const at::Tensor& hidden, const Context& context) const {
  at::Tensor x = hidden;
  if (transform_) x = transformed(linear(x, transform_, transform_bias_, context), options_.head_transform);
  if (head_norm_) x = head_norm_->forward(x, context);
  at::Tensor y = linear(x, head_ ? head_ : embedding_, head_bias_, context);
  if (y.scalar_type() != at::kDouble) y = y.to(at::kFloat);
  if (options_.logit_scale != 1) y = y * options_.logit_scale;
  return options_.logit_cap > 0 ? (y / options_.logit_cap).tanh() * options_.logit_cap : y;
}

}  // namespace switchyard
