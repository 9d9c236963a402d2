#include "switchyard/convert/mix_adapters.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/quantile.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"
#include "switchyard/base/progress.h"
#include "switchyard/base/random.h"

namespace switchyard {
namespace {

constexpr std::array<std::pair<const char*, Mix>, 11> kMixes{
    {{"linear", Mix::linear}, {"cat", Mix::cat}, {"svd", Mix::svd}, {"ties", Mix::ties}, {"ties_svd", Mix::ties_svd},
     {"dare_linear", Mix::dare_linear}, {"dare_linear_svd", Mix::dare_linear_svd}, {"dare_ties", Mix::dare_ties},
     {"dare_ties_svd", Mix::dare_ties_svd}, {"magnitude_prune", Mix::magnitude_prune}, {"magnitude_prune_svd", Mix::magnitude_prune_svd}}};

bool by_svd(Mix mix) { return std::string_view(to_string(mix)).ends_with("svd"); }
bool prunes(Mix mix) { return mix != Mix::linear && mix != Mix::cat && mix != Mix::svd; }

/// The sum over adapters of one kind of tensor, all of one shape.
class Summing {
 public:
  Summing(const MixOptions& options, const std::string& module) : options_(options), random_(options.seed), module_(module) {}

  at::Tensor operator()(std::vector<at::Tensor> tensors, const std::vector<double>& weights, const char* part) const {
    if (prunes(options_.mix))
      for (size_t i = 0; i < tensors.size(); ++i) tensors[i] = pruned(tensors[i], part, static_cast<int64_t>(i));
    const at::Tensor all = at::stack(tensors, 0);
    std::vector<int64_t> shape(static_cast<size_t>(all.dim()), 1);
    shape[0] = static_cast<int64_t>(weights.size());
    const at::Tensor weighed = all * at::tensor(weights, at::kFloat).to(all.scalar_type()).view(shape);
    switch (options_.mix) {
      case Mix::ties: case Mix::ties_svd: case Mix::dare_ties: case Mix::dare_ties_svd: {
        const at::Tensor agrees = elected(all);
        return (weighed * agrees).sum(0) / agrees.sum(0).clamp_min(1.0);
      }
      default: return weighed.sum(0);
    }
  }

 private:
  bool drops_by_chance() const {
    return options_.mix == Mix::dare_linear || options_.mix == Mix::dare_linear_svd || options_.mix == Mix::dare_ties ||
           options_.mix == Mix::dare_ties_svd;
  }

  at::Tensor pruned(const at::Tensor& tensor, const char* part, int64_t adapter) const {
    const double density = *options_.density;
    if (density >= 1) return tensor;
    if (drops_by_chance()) {
      const std::string site = module_ + part;  // the key only looks at it
      const RandomKey key{.purpose = "adapters.dare", .step = adapter, .site = site};
      return tensor * (random_.uniform(tensor.sizes(), key, at::kFloat) < density).to(tensor.scalar_type()) / density;
    }
    const auto kept = static_cast<int64_t>(density * static_cast<double>(tensor.numel()));
    const at::Tensor best = std::get<1>(tensor.abs().reshape({-1}).topk(kept));
    return tensor * at::zeros_like(tensor).reshape({-1}).index_fill(0, best, 1).view(tensor.sizes());
  }

  /// [adapters, ...] 1 where a value has the elected sign.
  at::Tensor elected(const at::Tensor& all) const {
    const at::Tensor sign = all.sign();
    const at::Tensor votes = options_.election == Election::total ? all.sum(0) : sign.sum(0);
    const at::Tensor majority = at::where(votes >= 0, at::ones_like(votes), -at::ones_like(votes));
    return (sign == majority).to(all.scalar_type());
  }

  const MixOptions& options_;
  Streams random_;
  std::string module_;
};

/// One module of one adapter.
struct Part {
  const peft::ModuleTensors* tensors;
  double weight, scale;
};

void check_mixable(const std::vector<WeightedAdapter>& adapters) {
  check(!adapters.empty(), "adapters.mix", "there is nothing to mix");
  for (const auto& [adapter, weight] : adapters) {
    const peft::AdapterConfig& config = adapter->config;
    check(config.kind == adapters.front().adapter->config.kind && config.kind != peft::Kind::xlora, "adapters.mix",
          "{} is {}, {} is {}; only adapters of one kind, LORA or IA3, are mixed", adapter->where, to_string(config.kind),
          adapters.front().adapter->where, to_string(adapters.front().adapter->config.kind));
    check(!config.dora, "adapters.mix", "{} is DoRA: its magnitudes belong to one base and cannot be mixed", adapter->where);
    check(!config.bias_on_b, "adapters.mix", "{} has biases on lora_B, which no mix knows", adapter->where);
    check(adapter->tokens.empty(), "adapters.mix", "{} brings trained rows of {}, which cannot be mixed", adapter->where,
          adapter->tokens.empty() ? "" : adapter->tokens.front().module);
    check(adapter->wholes.empty() || std::all_of(adapter->wholes.begin(), adapter->wholes.end(), [](const auto& whole) {
            return whole.base && whole.name.ends_with(".weight");
          }), "adapters.mix", "{} brings whole tensors of its own ({}), which no mix knows", adapter->where,
          adapter->wholes.empty() ? "" : adapter->wholes.front().name);
    check(config.target_parameters.empty(), "adapters.mix", "{} acts on parameters ({}), which no mix knows", adapter->where,
          fmt::join(config.target_parameters, ", "));
    check(config.init != "pissa" && config.init != "olora", "adapters.mix", "{} took its start out of the base ({}); convert it to plain LoRA first",
          adapter->where, config.init);
    check(std::isfinite(weight), "adapters.mix", "the weight of {} is not finite", adapter->where);
  }
}

/// b a of one part, scaled.
at::Tensor product(const Part& part) {
  return at::matmul(part.tensors->b.to(at::kFloat), part.tensors->a.to(at::kFloat)) * part.scale;
}

peft::ModuleTensors mixed(const std::vector<Part>& parts, const std::string& module, const MixOptions& options, int64_t svd_rank) {
  peft::ModuleTensors result;
  result.embedding = parts.front().tensors->embedding;
  const Summing sum(options, module);
  std::vector<at::Tensor> a, b;
  std::vector<double> for_a, for_b;
  if (options.mix == Mix::cat) {
    for (const Part& part : parts) {
      a.push_back(part.tensors->a * part.weight * part.scale);
      b.push_back(part.tensors->b);
    }
    result.a = at::cat(a, 0);
    result.b = at::cat(b, 1);
  } else if (by_svd(options.mix)) {
    for (const Part& part : parts) {
      a.push_back(product(part));
      for_a.push_back(part.weight);
    }
    const auto [u, s, v] = at::linalg_svd(sum(a, for_a, ".product"), false);
    const int64_t rank = std::min(svd_rank, s.size(0));
    result.b = u.narrow(1, 0, rank) * s.narrow(0, 0, rank);
    result.a = v.narrow(0, 0, rank);
    if (options.svd_clamp) {
      const at::Tensor bound = at::quantile(at::cat(std::vector<at::Tensor>{result.b.flatten(), result.a.flatten()}), *options.svd_clamp);
      result.b = result.b.clamp(-bound, bound);
      result.a = result.a.clamp(-bound, bound);
    }
  } else {
    for (const Part& part : parts) {
      const double weight = part.weight * part.scale, root = std::sqrt(std::abs(weight));
      a.push_back(part.tensors->a);
      b.push_back(part.tensors->b);
      for_a.push_back(weight >= 0 ? root : -root);
      for_b.push_back(root);
      check(part.tensors->a.sizes() == a.front().sizes(), "adapters.mix", "{} has rank {} in one adapter and {} in another; {} needs equal ones",
            module, a.front().size(0), part.tensors->a.size(0), to_string(options.mix));
    }
    result.a = sum(a, for_a, ".a").to(a.front().scalar_type());
    result.b = sum(b, for_b, ".b").to(b.front().scalar_type());
  }
  return result;
}

/// The most common rank, and the modules that have another, each by its full name. Scales are 1; of a rank-stabilised mix, which peft
/// gives one rank `whole` for all modules and alpha = rank, the root of that rank.
void set_ranks(peft::AdapterFile& result, int64_t whole) {
  const auto alpha = [&](int64_t rank) {
    return result.config.rank_stabilised ? std::sqrt(static_cast<double>(whole) * static_cast<double>(rank)) : static_cast<double>(rank);
  };
  std::map<int64_t, int64_t> count;
  for (const auto& [name, module] : result.modules) ++count[module.a.size(0)];
  const int64_t rank = std::max_element(count.begin(), count.end(), [](const auto& x, const auto& y) { return x.second < y.second; })->first;
  peft::ModuleRule target;
  for (const auto& [name, module] : result.modules) target.names.push_back(name);
  update(result.config, rank, alpha(rank), target);
  const auto escaped = [](const std::string& name) {
    std::string text;
    for (const char c : name) text += c == '.' ? std::string("\\.") : std::string(1, c);
    return text;
  };
  for (const auto& [name, module] : result.modules) {
    const int64_t own = module.a.size(0);
    if (own == rank) continue;
    result.config.rank_pattern.emplace_back(escaped(name), own);
    result.config.alpha_pattern.emplace_back(escaped(name), alpha(own));
    result.config.document["rank_pattern"][escaped(name)] = Node(std::to_string(own));
    result.config.document["alpha_pattern"][escaped(name)] = Node(fmt::format("{}", alpha(own)));
  }
}

/// Names instead of rules: which layers and which not is said by the list of targets.
void plain_rules(peft::AdapterConfig& config) {
  config.exclude = {};
  config.layers.clear();
  config.layers_pattern.clear();
  config.all_linear = false;
  config.targets_given = true;
  for (const char* key : {"exclude_modules", "layers_to_transform", "layers_pattern"})
    if (config.document.find(key)) config.document[key] = Node();
}

peft::AdapterFile mix_ia3(const std::vector<WeightedAdapter>& adapters, peft::AdapterFile result) {
  peft::ModuleRule target, feedforward;
  for (const auto& [adapter, weight] : adapters) {
    const peft::ModuleMatcher matcher(adapter->config);
    for (const auto& [name, module] : adapter->modules) {
      const auto known = std::find_if(result.modules.begin(), result.modules.end(), [&, &wanted = name](const auto& e) { return e.first == wanted; });
      const at::Tensor part = module.scale * weight;
      if (known == result.modules.end()) {
        target.names.push_back(name);
        if (matcher.is_feedforward(name)) feedforward.names.push_back(name);
        result.modules.emplace_back(name, peft::ModuleTensors{});
        result.modules.back().second.scale = part;
        continue;
      }
      at::Tensor& scale = known->second.scale;
      check(scale.sizes() == part.sizes(), "adapters.mix", "{} has {} values in one adapter and {} in another", name, scale.numel(), part.numel());
      scale = scale + part;
    }
  }
  result.config.target = target;
  result.config.feedforward = feedforward;
  for (const auto& [key, rule] : {std::pair{"target_modules", &target}, std::pair{"feedforward_modules", &feedforward}}) {
    result.config.document[key] = Node::list();
    for (const std::string& name : rule->names) {
      Node text(name);
      text.set_quoted(true);
      result.config.document[key].append(std::move(text));
    }
  }
  return result;
}

}  // namespace

Mix mix_named(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [known, mix] : kMixes) {
    if (name == known) return mix;
    names.push_back(known);
  }
  fail("adapters.mix", "there is no mix '{}'; they are {}", name, fmt::join(names, ", "));
}

const char* to_string(Mix mix) {
  for (const auto& [name, known] : kMixes)
    if (known == mix) return name;
  return "?";
}

peft::AdapterFile mix_adapters(const std::vector<WeightedAdapter>& adapters, const MixOptions& asked) {
  check_mixable(adapters);
  MixOptions options = asked;
  if (adapters.size() == 1) options.mix = Mix::linear;
  if (prunes(options.mix))
    check(options.density && *options.density > 0 && *options.density <= 1, "adapters.density", "{} needs a density above 0 and up to 1, not {}",
          to_string(options.mix), options.density ? fmt::format("{}", *options.density) : "none");
  check(!options.svd_rank || *options.svd_rank > 0, "adapters.mix", "a rank of {} is none", options.svd_rank.value_or(0));
  check(!options.svd_clamp || (*options.svd_clamp >= 0 && *options.svd_clamp <= 1), "adapters.mix", "a quantile of {} is not between 0 and 1",
        options.svd_clamp.value_or(0));

  const peft::AdapterFile& first = *adapters.front().adapter;
  peft::AdapterFile result{.config = first.config, .where = "the mix", .modules = {}, .wholes = {}, .tokens = {}, .classifier = {}, .experts = {}};
  plain_rules(result.config);
  if (first.config.kind == peft::Kind::ia3) return mix_ia3(adapters, std::move(result));

  int64_t widest = 0, whole = 0;  // the ranks that the configs allow
  std::vector<std::pair<std::string, std::vector<Part>>> modules;
  std::map<std::string, size_t> at;
  for (const auto& [adapter, weight] : adapters) {
    const peft::ModuleMatcher matcher(adapter->config);
    int64_t allowed = adapter->config.rank;
    for (const auto& [pattern, rank] : adapter->config.rank_pattern) allowed = std::max(allowed, rank);
    whole = options.mix == Mix::cat ? whole + allowed : std::max(whole, allowed);
    for (const auto& [name, tensors] : adapter->modules) {
      const int64_t rank = matcher.rank(name);
      check(rank == tensors.a.size(0), "adapters.rank", "{}: {} has rank {}, but the config says {}", adapter->where, name, tensors.a.size(0), rank);
      widest = std::max(widest, rank);
      const auto [place, fresh] = at.emplace(name, modules.size());
      if (fresh) modules.emplace_back(name, std::vector<Part>{});
      std::vector<Part>& parts = modules[place->second].second;
      const bool same = parts.empty() || (parts.front().tensors->a.size(1) == tensors.a.size(1) &&
                                          parts.front().tensors->b.size(0) == tensors.b.size(0) && parts.front().tensors->embedding == tensors.embedding);
      check(same, "adapters.mix", "{} maps {} to {} in {}, other widths elsewhere; the adapters were made for different bases", name,
            tensors.a.size(1), tensors.b.size(0), adapter->where);
      parts.push_back({&tensors, weight, matcher.scale(name, rank)});
    }
  }
  check(!modules.empty(), "adapters.mix", "the adapters hold no modules");
  for (const auto& [name, parts] : modules)
    result.modules.emplace_back(name, mixed(parts, name, options, options.svd_rank.value_or(widest)));
  if (by_svd(options.mix) && options.svd_rank) whole = *options.svd_rank;
  if (first.config.rank_stabilised)
    log_warning(fmt::format("{} is rank-stabilised, and so is the mix, as peft has it: it adds the root of {}, its rank, times the sum", first.where, whole));
  set_ranks(result, whole);
  return result;
}

}  // namespace switchyard
