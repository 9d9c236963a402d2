#include "switchyard/models/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty_like.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/contract/adaptation.h"
#include "switchyard/models/mixture.h"

namespace switchyard {

/// The state that holds a sequence's token ids.
static constexpr const char* kTokens = "token_id";

/// Makes blocks with their sites, and sees that every mixture and site of the options finds its place.
class Decoder::Builder {
 public:
  explicit Builder(const ModelOptions& options) : options_(options) {
    for (size_t i = 0; i < options.mixtures.size(); ++i)
      wishes_.push_back({fmt::format("mixtures.{}", i), options.mixtures[i].at, &options.mixtures[i].layers,
                         [&mixture = options.mixtures[i]] { return std::make_shared<Mixture>(mixture); }});
    for (size_t i = 0; i < options.sites.size(); ++i)
      wishes_.push_back({fmt::format("sites.{}", i), options.sites[i].at, &options.sites[i].layers,
                         [&site = options.sites[i]] { return site.around.make(); }});
    for (const Wish& wish : wishes_) check_placement(*wish.layers, wish.name);
    for (size_t i = 0; i < options.variants.size(); ++i)
      check_placement(options.variants[i].layers, fmt::format("variants.{}", i));
  }

  PartPtr norm() const { return make_norm(options_.norm, options_.width, options_.norm_eps); }

  std::shared_ptr<Block> block(int64_t layer) {
    known_.clear();
    const std::string name = fmt::format("layers.{}", layer);
    const BlockForm form = options_.block;
    const ResidualOptions& residual = options_.residual_of(layer);
    std::vector<Sub> subs;
    if (form == BlockForm::parallel)
      subs.push_back({.name = "norm", .read = "in", .write = "normed", .pre = {}, .body = norm(), .post = {}, .site = {}});
    const auto add = [&](const char* which, const Choice<Body>& choice, double keep, double scale) {
      Sub sub{.name = which, .pre = {}, .body = {}, .post = {}, .keep = keep, .add = scale, .site = {}};
      sub.site = site(layer, name, which, options_.width, options_.width);
      if (!choice && !sub.site.replaced()) {
        known_.pop_back();
        return;
      }
      if (!sub.site.replaced()) {
        std::shared_ptr<Body> body = choice.make();
        body->prepare(place(layer, name, which));
        sub.body = std::move(body);
      }
      form_norms(sub);
      subs.push_back(std::move(sub));
    };
    add("attention", options_.attention_of(layer), residual.attention_keep, residual.attention_add);
    const auto extra = [&] {
      if (options_.extra_of(layer)) add("extra", options_.extra_of(layer), 1, 1);
    };
    if (form == BlockForm::beside) extra();
    add("feed_forward", options_.feed_forward_of(layer), residual.feed_forward_keep, residual.feed_forward_add);
    if (form != BlockForm::beside) extra();
    Site whole = site(layer, name, "block", options_.width, options_.width);
    check_wishes(layer);
    return std::make_shared<Block>(name, layer, std::move(subs), std::move(whole));
  }

 private:
  /// Where the norms of a sub-layer stand.
  void form_norms(Sub& sub) const {
    switch (options_.block) {
      case BlockForm::pre_norm: sub.pre = norm(); break;
      case BlockForm::parallel: sub.read = "normed"; break;
      case BlockForm::post_norm: sub.post = norm(); break;
      case BlockForm::sandwich:
        sub.pre = norm();
        sub.post = norm();
        break;
      case BlockForm::keep_norm:
        sub.pre = norm();
        sub.kept = Sub::Kept::normed;
        break;
      case BlockForm::after_norm: sub.after = norm(); break;
      case BlockForm::beside:
        sub.pre = norm();
        if (sub.name == "feed_forward") sub.read = "in";
        break;
    }
  }

  struct Wish {
    std::string name;  ///< as the recipe counts it: "mixtures.0"
    std::string at;
    const Placement* layers;
    std::function<AroundPtr()> make;
  };

  void check_placement(const Placement& placement, const std::string& name) const {
    for (int64_t layer : placement.list)
      check(layer >= -options_.layers && layer < options_.layers, "model.placement",
            "{}.layers lists layer {}, but the model has {} layers", name, layer, options_.layers);
    for (int64_t layer = 0; layer < options_.layers; ++layer)
      if (placement.includes(layer, options_.layers)) return;
    check(options_.layers == 0, "model.placement",
          "{}.layers (every {}, offset {}, last {}, first_dense {}) meets none of the model's {} layers", name,
          placement.every, placement.offset, placement.last, placement.first_dense, options_.layers);
  }

  /// The site of `inner` ("attention", "attention.query", "block") in one layer, with its occupants.
  Site site(int64_t layer, const std::string& block, const std::string& inner, int64_t in, int64_t out) {
    Site site(inner == "block" ? block : block + "." + inner, layer, in, out);
    for (const Wish& wish : wishes_)
      if (wish.at == inner && wish.layers->includes(layer, options_.layers)) site.occupy(wish.make());
    known_.push_back(inner);
    return site;
  }

  BodyPlace place(int64_t layer, const std::string& block, const std::string& which) {
    BodyPlace place{.layer = layer, .layers = options_.layers, .width = options_.width, .name = block + "." + which,
                    .init_deviation = options_.init_deviation, .norm_eps = options_.norm_eps, .norm = options_.norm, .rotary = {}, .site = {}};
    if (options_.positions == Positions::rope)
      place.rotary = RotaryOptions{.theta = options_.rope_theta, .fraction = options_.rope_fraction,
                                   .pairs = options_.rope_pairs, .scaling = options_.rope_scaling};
    place.site = [this, layer, block, which](const std::string& inner, int64_t in, int64_t out) {
      return site(layer, block, which + "." + inner, in, out);
    };
    return place;
  }

  void check_wishes(int64_t layer) const {
    for (const Wish& wish : wishes_)
      if (wish.layers->includes(layer, options_.layers))
        check(std::find(known_.begin(), known_.end(), wish.at) != known_.end(), "model.site",
              "{} sits at \"{}\" of layer {}, which has no such site; it has {}", wish.name, wish.at, layer,
              fmt::join(known_, ", "));
  }

  const ModelOptions& options_;
  std::vector<Wish> wishes_;
  std::vector<std::string> known_;  ///< sites of the layer in hand
};

Decoder::Decoder(ModelOptions options) : options_(std::move(options)) {
  check(options_.vocabulary > 0, "model.vocabulary",
        "the model's vocabulary is {}; set model.vocabulary, or give a tokenizer to take it from", options_.vocabulary);
  Builder builder(options_);
  for (int64_t layer = 0; layer < options_.layers; ++layer) blocks_.push_back(builder.block(layer));
  final_norm_ = make_norm(options_.norm, options_.width, options_.final_norm_eps.value_or(options_.norm_eps));
  declare();
  find_routings();
}

void Decoder::declare() {
  const Init init = Init::normal(options_.init_deviation);
  embedding_ = schema_.in("embedding").add("weight", {options_.vocabulary, options_.width}, Role::embedding, init);
  if (options_.positions == Positions::learned)
    position_embedding_ =
        schema_.in("position_embedding").add("weight", {options_.context, options_.width}, Role::embedding, init);
  for (size_t layer = 0; layer < blocks_.size(); ++layer)
    blocks_[layer]->declare(schema_.in(fmt::format("layers.{}", layer)));
  final_norm_->declare(schema_.in("norm"));
  if (!options_.tied_embeddings)
    head_ = schema_.in("head").add("weight", {options_.vocabulary, options_.width}, Role::head, init);
  if (options_.head_bias) head_bias_ = schema_.in("head").add("bias", {options_.vocabulary}, Role::bias, Init::zeros());
}

void Decoder::find_routings() {
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    const std::function<void(Part&)> visit = [&](Part& part) {
      if (auto* routing = dynamic_cast<HasRouting*>(&part))
        routings_.push_back({static_cast<int64_t>(layer), routing->station()});
      part.each_child(visit);
    };
    blocks_[layer]->each_child(visit);
  }
}

std::vector<StateSpec> Decoder::states() const {
  std::vector<StateSpec> list;
  for (const auto& block : blocks_)
    for (StateSpec& state : block->states()) list.push_back(std::move(state));
  list.push_back({.name = kTokens, .kind = StateSpec::Kind::per_token, .shape = {}});
  return list;
}

Reach Decoder::reach(const Overrides& overrides, Phase phase) const {
  Reach reach;
  if (!options_.causal)
    reach = {.unit = Reach::Unit::sequence, .future = true, .because = "attention that is not causal"};
  for (const auto& block : blocks_) reach = larger(reach, block->reach(overrides, phase));
  return reach;
}

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

}  // namespace

at::Tensor Decoder::forward(const at::Tensor& ids, const Context& outer, std::vector<at::Tensor>* hidden) const {
  check(ids.dim() == 1 && ids.size(0) == outer.facts.segments.rows(), "model.rows",
        "{} token ids came with segments of {} rows", ids.numel(), outer.facts.segments.rows());
  if (ids.size(0) > 0) {
    const int64_t lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
    check(lowest >= 0 && highest < options_.vocabulary, "model.token_id",
          "token ids run from {} to {}, but the vocabulary has {} entries", lowest, highest, options_.vocabulary);
  }
  Facts facts = outer.facts;
  facts.segments.causal = options_.causal;
  facts.set_row("token_id", ids);
  if (outer.state) facts.set_row("previous_token_id", previous_ids(ids, facts.segments, *outer.state));
  const Context context = outer.with(facts);

  at::Tensor x = embedding(ids, embedding_, context);
  if (options_.embedding_scale != 1) x = x * options_.embedding_scale;
  if (position_embedding_) {
    const at::Tensor position = facts.row("position", "learned positions");
    if (position.size(0) > 0)
      check(position.max().item<int64_t>() < options_.context, "model.context",
            "position {} lies outside the model's context of {} tokens", position.max().item<int64_t>(), options_.context);
    x = x + embedding(position, position_embedding_, context);
  }
  if (hidden) hidden->push_back(x);
  for (const auto& block : blocks_) {
    x = block->forward(x, context);
    if (hidden) hidden->push_back(x);
  }
  return final_norm_->forward(x, context);
}

at::Tensor Decoder::logits(const at::Tensor& hidden, const Context& context) const {
  at::Tensor y = linear(hidden, head_ ? head_ : embedding_, head_bias_, context);
  if (y.scalar_type() != at::kDouble) y = y.to(at::kFloat);
  if (options_.logit_scale != 1) y = y * options_.logit_scale;
  return options_.logit_cap > 0 ? (y / options_.logit_cap).tanh() * options_.logit_cap : y;
}

}  // namespace switchyard
