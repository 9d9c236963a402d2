#include "switchyard/blocks/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>

#include <utility>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/blocks/recompute.h"

namespace switchyard {

Block::Block(std::string name, int64_t layer, std::vector<Sub> subs, Site site)
    : name_(std::move(name)), layer_(layer), subs_(std::move(subs)), site_(std::move(site)) {
  for (const Sub& sub : subs_)
    check(sub.write != "in", "blocks.stream", "{}: sub-layer {} writes the stream \"in\", which is the block's input", name_,
          sub.name);
}

void Block::declare(const Schema& schema) {
  const size_t before = schema.all().size();
  for (const Sub& sub : subs_) {
    if (sub.pre) sub.pre->declare(schema.in(sub.name + "_norm"));
    const Schema place = schema.in(sub.name);
    if (sub.body && !sub.site.replaced()) sub.body->declare(place);
    sub.site.declare(place);
    if (sub.post) sub.post->declare(schema.in(sub.name + "_post_norm"));
    if (sub.after) sub.after->declare(schema.in(sub.name + "_after_norm"));
  }
  site_.declare(schema);
  parameters_.assign(schema.all().begin() + static_cast<std::ptrdiff_t>(before), schema.all().end());
}

at::Tensor Block::forward(const at::Tensor& x, const Context& outer) const {
  const Context context = outer.at_layer(layer_, name_);
  const auto whole = [this](const at::Tensor& rows, const Context& place) {
    return site_(rows, place, [this](const at::Tensor& inner, const Context& at) { return run(inner, at); });
  };
  return context.recompute ? recompute(x, parameters_, context, whole) : whole(x, context);
}

at::Tensor Block::run(const at::Tensor& x, const Context& context) const {
  std::vector<std::pair<std::string, at::Tensor>> streams{{"x", x}};
  const auto find = [&](const std::string& name) -> at::Tensor* {
    for (auto& [known, rows] : streams)
      if (known == name) return &rows;
    return nullptr;
  };
  for (const Sub& sub : subs_) {
    const at::Tensor* read = sub.read == "in" ? &x : find(sub.read);
    TORCH_INTERNAL_ASSERT(read != nullptr, "stream read before it was written");
    const Context place = context.at(sub.site.where().site.empty() ? name_ + "." + sub.name : sub.site.where().site);
    const at::Tensor entered = sub.pre ? sub.pre->forward(*read, place) : *read;
    at::Tensor y = sub.site(entered, place, [&sub](const at::Tensor& rows, const Context& at) {
      return sub.body ? sub.body->forward(rows, at) : rows;
    });
    if (sub.post) y = sub.post->forward(y, place);
    if (sub.add != 1) y = y * sub.add;
    if (at::Tensor* write = find(sub.write); write == nullptr) {
      streams.emplace_back(sub.write, std::move(y));
    } else if (sub.keep == 0) {
      *write = std::move(y);
    } else {
      const at::Tensor& kept = sub.kept == Sub::Kept::normed ? entered : *write;
      *write = sub.keep == 1 ? kept + y : kept * sub.keep + y;
      if (sub.after) *write = sub.after->forward(*write, place);
    }
  }
  return *find("x");
}

std::vector<StateSpec> Block::states() const {
  std::vector<StateSpec> list = site_.states();
  const auto take = [&](std::vector<StateSpec> more) {
    for (StateSpec& state : more) list.push_back(std::move(state));
  };
  for (const Sub& sub : subs_) {
    take(sub.site.states());
    for (const PartPtr& part : {sub.pre, sub.body, sub.post, sub.after})
      if (part) take(part->states());
  }
  return list;
}

Reach Block::reach(const Overrides& overrides, Phase phase) const {
  Reach reach = site_.reach(overrides, phase);
  for (const Sub& sub : subs_) {
    reach = larger(reach, sub.site.reach(overrides, phase));
    for (const PartPtr& part : {sub.pre, sub.body, sub.post, sub.after})
      if (part) reach = larger(reach, part->reach(overrides, phase));
  }
  return reach;
}

void Block::each_child(const std::function<void(Part&)>& visit) {
  for (const Sub& sub : subs_) {
    for (const PartPtr& part : {sub.pre, sub.body, sub.post, sub.after})
      if (part) visit(*part);
    sub.site.each_child(visit);
  }
  site_.each_child(visit);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(transformer_block) {
  registry.add_card({.slug = "transformer-block", .name = "Transformer block", .paper = "Vaswani et al., Attention is all you need",
                     .year = 2017, .section = "2.1", .room = "blocks", .coupling = "none",
                     .line = "attention and feed-forward around a residual stream: `block: pre_norm` or `parallel`",
                     .recipe = "recipes/quickstart.yaml"});
}
