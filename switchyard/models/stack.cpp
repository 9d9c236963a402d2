#include "switchyard/models/stack.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/contract/adaptation.h"
#include "switchyard/models/mixture.h"

namespace switchyard {

/// Makes blocks with their sites, and sees that every mixture and site of the options finds its place.
class Stack::Builder {
 public:
  Builder(const StackOptions& options, const Choice<Body>& cross, std::string prefix, int64_t width, std::shared_ptr<RelativeBias> relative)
      : options_(options), cross_(cross), prefix_(std::move(prefix)), width_(width), relative_(std::move(relative)) {
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

  PartPtr norm() const { return make_norm(options_.norm, width_, options_.norm_eps); }

  std::shared_ptr<Block> block(int64_t layer) {
    known_.clear();
    const std::string name = fmt::format("{}layers.{}", prefix_, layer);
    const BlockForm form = options_.block;
    const ResidualOptions& residual = options_.residual_of(layer);
    std::vector<Sub> subs;
    if (form == BlockForm::parallel)
      subs.push_back({.name = "norm", .read = "in", .write = "normed", .pre = {}, .body = norm(), .post = {}, .site = {}});
    const auto add = [&](const char* which, const Choice<Body>& choice, double keep, double scale) {
      Sub sub{.name = which, .pre = {}, .body = {}, .post = {}, .keep = keep, .add = scale, .site = {}};
      sub.site = site(layer, name, which, width_, width_);
      if (!choice && !sub.site.replaced()) {
        known_.pop_back();
        return;
      }
      if (!sub.site.replaced()) {
        std::shared_ptr<Body> body = choice.make();
        body->prepare(place(layer, name, which));
        sub.body = std::move(body);
      }
      form_norms(sub, static_cast<bool>(options_.extra_of(layer)));
      subs.push_back(std::move(sub));
    };
    add("attention", options_.attention_of(layer), residual.attention_keep, residual.attention_add);
    const auto extra = [&] {
      if (options_.extra_of(layer)) add("extra", options_.extra_of(layer), 1, 1);
    };
    if (cross_) add("cross_attention", cross_, 1, 1);
    if (form == BlockForm::beside) extra();
    add("feed_forward", options_.feed_forward_of(layer), residual.feed_forward_keep, residual.feed_forward_add);
    if (form != BlockForm::beside) extra();
    Site whole = site(layer, name, "block", width_, width_);
    check_wishes(layer);
    return std::make_shared<Block>(name, layer, std::move(subs), std::move(whole));
  }

 private:
  /// Where the norms of a sub-layer stand. extra: the layer has a third one.
  void form_norms(Sub& sub, bool extra) const {
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
        if (sub.name == "feed_forward" && extra) sub.read = "in";  // a layer without a third one is pre_norm
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
    BodyPlace place{.layer = layer, .layers = options_.layers, .width = width_, .name = block + "." + which,
                    .init_deviation = options_.init_deviation, .norm_eps = options_.norm_eps, .norm = options_.norm, .rotary = {}, .relative = relative_,
                    .site = {}};
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
              "{}{} sits at \"{}\" of layer {}, which has no such site; it has {}", prefix_, wish.name, wish.at, layer,
              fmt::join(known_, ", "));
  }

  const StackOptions& options_;
  const Choice<Body>& cross_;
  std::string prefix_;
  int64_t width_;
  std::shared_ptr<RelativeBias> relative_;
  std::vector<Wish> wishes_;
  std::vector<std::string> known_;  ///< sites of the layer in hand
};

Stack::Stack(const StackOptions& options, const Choice<Body>& cross, const std::string& prefix, Size size)
    : causal_(options.causal), positions_(options.positions), position_offset_(options.position_offset),
      init_deviation_(options.init_deviation), size_(size) {
  if (positions_ == Positions::relative)
    relative_ = std::make_shared<RelativeBias>(options.relative_buckets, options.relative_distance, /*two_sided=*/!causal_);
  Builder builder(options, cross, prefix, size.width, relative_);
  for (int64_t layer = 0; layer < options.layers; ++layer) blocks_.push_back(builder.block(layer));
  check(!relative_ || relative_->heads() > 0 || options.layers == 0, "model.positions",
        "positions: relative, but no attention of the model adds a bias to its scores; use attention: gqa");
  check(positions_ != Positions::sinusoidal || (size.width % 2 == 0 && size.width >= 4), "model.positions",
        "positions: sinusoidal needs an even width of at least 4, not {}", size.width);
  if (options.embedding_norm) embedding_norm_ = builder.norm();
  if (options.final_norm) final_norm_ = make_norm(options.norm, size.width, options.final_norm_eps.value_or(options.norm_eps));
}

void Stack::declare(const Schema& schema) {
  if (positions_ == Positions::learned)
    position_embedding_ = schema.in("position_embedding").add("weight", {size_.context, size_.width}, Role::embedding, Init::normal(init_deviation_));
  if (relative_ && relative_->heads() > 0) relative_->declare(schema.in("relative_bias"));
  if (embedding_norm_) embedding_norm_->declare(schema.in("embedding_norm"));
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    blocks_[layer]->declare(schema.in(fmt::format("layers.{}", layer)));
    if (relative_ && relative_->heads() > 0) blocks_[layer]->also_reads(relative_->weight());
  }
  if (final_norm_) final_norm_->declare(schema.in("norm"));
}

void Stack::find_routings(std::vector<PlacedRouting>& routings) const {
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    const std::function<void(Part&)> visit = [&](Part& part) {
      if (auto* routing = dynamic_cast<HasRouting*>(&part)) routings.push_back({static_cast<int64_t>(layer), routing->station()});
      part.each_child(visit);
    };
    blocks_[layer]->each_child(visit);
  }
}

std::vector<StateSpec> Stack::states() const {
  std::vector<StateSpec> list;
  for (const auto& block : blocks_)
    for (StateSpec& state : block->states()) list.push_back(std::move(state));
  return list;
}

Reach Stack::reach(const Overrides& overrides, Phase phase) const {
  Reach reach;
  if (!causal_) reach = {.unit = Reach::Unit::sequence, .future = true, .because = "attention that is not causal"};
  for (const auto& block : blocks_) reach = larger(reach, block->reach(overrides, phase));
  return reach;
}

namespace {

/// [rows, width]: sin(p f_j), then cos(p f_j), with frequencies f_j = 10000^(-j / (width / 2 - 1)).
at::Tensor sinusoids(const at::Tensor& position, int64_t width) {
  const int64_t half = width / 2;
  const double step = -std::log(10000.0) / static_cast<double>(half - 1);
  const at::Tensor frequency = (at::arange(half, at::TensorOptions().dtype(at::kFloat).device(position.device())) * step).exp();
  const at::Tensor angle = position.to(at::kFloat).unsqueeze(1) * frequency.unsqueeze(0);
  return at::cat({angle.sin(), angle.cos()}, 1);
}

}  // namespace

at::Tensor Stack::with_positions(at::Tensor x, const Context& context) const {
  if (position_embedding_) {
    const at::Tensor position = context.facts.row("position", "learned positions");
    if (position.size(0) > 0)
      check(position.max().item<int64_t>() < size_.context, "model.context",
            "position {} lies outside the model's context of {} tokens", position.max().item<int64_t>(), size_.context);
    return x + embedding(position, position_embedding_, context);
  }
  if (positions_ == Positions::sinusoidal)
    return x + sinusoids(context.facts.row("position", "sinusoidal positions") + position_offset_, size_.width).to(x.scalar_type());
  return x;
}

at::Tensor Stack::forward(at::Tensor x, const Context& outer, std::vector<at::Tensor>* hidden) const {
  Facts facts = outer.facts;
  facts.segments.causal = causal_;
  const Context context = outer.with(facts);
  x = with_positions(std::move(x), context);
  if (embedding_norm_) x = embedding_norm_->forward(x, context);
  if (hidden) hidden->push_back(x);
  for (const auto& block : blocks_) {
    x = block->forward(x, context);
    if (hidden) hidden->push_back(x);
  }
  return final_norm_ ? final_norm_->forward(x, context) : x;
}

}  // namespace switchyard
