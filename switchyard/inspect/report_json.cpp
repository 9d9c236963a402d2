#include <algorithm>
#include <cmath>
#include <map>

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/inspect/report.h"
#include "switchyard/inspect/routing_statistics.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

/// Four significant digits: what a chart can show, at a fraction of the bytes.
Json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == 0 || (std::abs(value) < 1e15 && value == std::floor(value))) return static_cast<int64_t>(value);
  const double scale = std::pow(10.0, 3 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

template <typename Values>
Json numbers(const Values& values) {
  Json list = Json::array();
  for (const auto& value : values) list.push_back(number(static_cast<double>(value)));
  return list;
}

Json matrix(const Table& table) {
  Json list = Json::array();
  for (int64_t r = 0; r < table.rows; ++r)
    list.push_back(numbers(std::span(table.values).subspan(static_cast<size_t>(r * table.columns), static_cast<size_t>(table.columns))));
  return list;
}

Json load_of(const LoadReport& load) {
  return {{"engaged", numbers(load.engaged)}, {"admitted", numbers(load.admitted)}, {"cv", number(load.cv)},
          {"max_violation", number(load.max_violation)}, {"gini", number(load.gini)},
          {"entropy_ratio", number(load.entropy_ratio)}, {"divergence", number(load.divergence)},
          {"dead_share", number(load.dead_share)}, {"admitted_cv", number(load.admitted_cv)}, {"drop_rate", number(load.drop_rate)},
          {"importance_cv", number(load.importance_cv)}, {"importance_correlation", number(load.importance_correlation)}};
}

Json history_of(const LoadHistory& history) {
  Json steps = Json::array(), share = Json::array(), cv = Json::array(), drop = Json::array(), dead = Json::array();
  for (size_t w = 0; w < history.step.size(); ++w) {
    const LoadReport load = load_report(history.engaged[w], history.admitted[w]);
    double total = 0;
    for (const double v : load.engaged) total += v;
    std::vector<double> shares = load.engaged;
    for (double& v : shares) v = total > 0 ? v / total : 0;
    steps.push_back(history.step[w]);
    share.push_back(numbers(shares));
    cv.push_back(number(load.cv));
    drop.push_back(number(load.drop_rate));
    dead.push_back(number(load.dead_share));
  }
  return {{"steps", steps}, {"share", share}, {"cv", cv}, {"drop_rate", drop}, {"dead_share", dead}};
}

Json domain_of(const DomainReport& domain) {
  return {{"share", matrix(domain.share)}, {"best_share", matrix(domain.best_share)},
          {"experts_per_token", number(domain.experts_per_token)}, {"chance", number(domain.chance)},
          {"max_ratio", number(domain.max_ratio)}, {"variation", matrix(domain.variation)},
          {"mean_variation", number(domain.mean_variation)}, {"chance_variation_high", number(domain.chance_variation_high)},
          {"information", number(domain.information)}, {"normalised", number(domain.normalised)},
          {"chance_information", number(domain.chance_information)}, {"chance_normalised", number(domain.chance_normalised)},
          {"chance_high", number(domain.chance_high)}, {"p_value", number(domain.p_value)}};
}

Json tokens_of(const ReportInput& input, const LayerTrace& layer) {
  Json result = Json::object();
  // A short probe has few ids that occur ten times; three still tell a favourite from noise better than one.
  const int64_t min_count = input.trace.rows() >= 20000 ? 10 : 3;
  result["min_count"] = min_count;
  const auto add = [&](const char* name, TokenKind kind) {
    const TokenReport report = token_report(input.trace, layer, kind, min_count, 16);
    result[name] = {{"score", number(report.score)}, {"baseline", number(report.baseline)},
                    {"explained", number(report.explained)}, {"types", report.types}};
    if (kind != TokenKind::input) return;
    Json experts = Json::array();
    for (const auto& list : report.favourites) {
      Json tokens = Json::array();
      for (const auto& favourite : list)
        tokens.push_back({{"token", input.token_name ? input.token_name(favourite.token) : std::to_string(favourite.token)},
                          {"count", favourite.count}, {"share", number(favourite.share)}, {"lift", number(favourite.lift)}});
      experts.push_back(std::move(tokens));
    }
    result["favourites"] = std::move(experts);
  };
  add("input", TokenKind::input);
  add("next", TokenKind::next);
  if (!input.trace.predicted.empty()) add("predicted", TokenKind::predicted);
  return result;
}

Json drops_of(const DropReport& drops) {
  std::vector<double> rate;
  for (size_t b = 0; b < drops.engaged.size(); ++b) rate.push_back(drops.engaged[b] > 0 ? drops.dropped[b] / drops.engaged[b] : 0);
  return {{"rate", number(drops.rate)}, {"by_position", numbers(rate)}, {"by_sequence", numbers(drops.by_sequence)},
          {"longest", drops.longest}, {"end_minus_start", number(drops.end_minus_start)}, {"ratio", number(drops.ratio)},
          {"slope", number(drops.trend.slope)}, {"slope_error", number(drops.trend.slope_error)},
          {"chi_square", number(drops.chi_square)}};
}

Json saturation_of(const ReportInput& input, size_t index) {
  Json list = Json::array();
  if (input.checkpoints.size() < 2) return list;
  const RoutingTrace& last = input.checkpoints.back().second;
  for (const auto& [step, trace] : input.checkpoints) {
    const SaturationReport report = saturation_report(trace, trace.layers.at(index), last, last.layers.at(index));
    list.push_back({{"step", step}, {"overlap", number(report.overlap)}, {"chance", number(report.chance)},
                    {"best_agreement", number(report.best_agreement)}});
  }
  return list;
}

/// The first rows of each domain, in the order of the trace.
Json samples_of(const ReportInput& input) {
  const RoutingTrace& trace = input.trace;
  double pairs_a_token = 1;
  for (const LayerTrace& layer : trace.layers)
    pairs_a_token += layer.dense || layer.rows() == 0 ? 1 : static_cast<double>(layer.expert.size()) / static_cast<double>(layer.rows());
  // The page stays a few megabytes however many layers and experts a token has.
  constexpr double kPairs = 300000;
  const auto affordable = static_cast<int64_t>(kPairs / pairs_a_token / static_cast<double>(std::max<size_t>(1, trace.domains.size())));
  const int64_t length = std::min(input.sample_tokens, std::max<int64_t>(40, affordable));
  Json samples = Json::array();
  for (size_t d = 0; d < trace.domains.size(); ++d) {
    std::vector<size_t> rows;
    for (size_t r = 0; r < trace.token.size() && static_cast<int64_t>(rows.size()) < length; ++r)
      if (trace.domain_of(static_cast<int64_t>(r)) == static_cast<int64_t>(d)) rows.push_back(r);
    if (rows.empty()) continue;
    Json pieces = Json::array(), begins = Json::array(), losses = Json::array();
    for (size_t i = 0; i < rows.size();) {
      size_t end = i;
      std::vector<int32_t> ids;
      while (end < rows.size() && trace.segment[rows[end]] == trace.segment[rows[i]]) ids.push_back(trace.token[rows[end++]]);
      begins.push_back(i);
      if (input.pieces) for (const std::string& piece : input.pieces(ids)) pieces.push_back(piece);
      else for (const int32_t id : ids) pieces.push_back(std::to_string(id) + " ");
      i = end;
    }
    // A token's surprise is what the row before it lost on it.
    for (const size_t r : rows) {
      const bool known = !trace.loss.empty() && r > 0 && trace.segment[r - 1] == trace.segment[r];
      losses.push_back(known ? number(trace.loss[r - 1]) : Json(nullptr));
    }
    Json layers = Json::array();
    for (const LayerTrace& layer : trace.layers) {
      Json experts = Json::array(), weights = Json::array(), dropped = Json::array();
      for (size_t i = 0; i < rows.size(); ++i) {
        const size_t r = rows[i];
        Json chosen = Json::array(), weight = Json::array();
        if (layer.dense) {
          chosen.push_back(layer.best[r]);
          weight.push_back(number(layer.best_weight[r]));
        }
        for (int64_t p = layer.offset[r]; p < layer.offset[r + 1]; ++p) {
          chosen.push_back(layer.expert[static_cast<size_t>(p)]);
          weight.push_back(number(layer.weight[static_cast<size_t>(p)]));
          if (!layer.kept[static_cast<size_t>(p)]) dropped.push_back({i, layer.expert[static_cast<size_t>(p)]});
        }
        experts.push_back(std::move(chosen));
        weights.push_back(std::move(weight));
      }
      layers.push_back({{"experts", std::move(experts)}, {"weights", std::move(weights)}, {"dropped", std::move(dropped)}});
    }
    samples.push_back({{"domain", trace.domains[d]}, {"pieces", std::move(pieces)}, {"begins", std::move(begins)},
                       {"loss", std::move(losses)}, {"layers", std::move(layers)}});
  }
  return samples;
}

Json losses_by_domain(const RoutingTrace& trace) {
  if (trace.loss.empty()) return nullptr;
  std::vector<double> total(trace.domains.size()), count(trace.domains.size());
  for (size_t r = 0; r < trace.loss.size(); ++r) {
    if (std::isnan(trace.loss[r])) continue;
    total[static_cast<size_t>(trace.domain_of(static_cast<int64_t>(r)))] += trace.loss[r];
    count[static_cast<size_t>(trace.domain_of(static_cast<int64_t>(r)))] += 1;
  }
  Json list = Json::array();
  for (size_t d = 0; d < total.size(); ++d) list.push_back(count[d] > 0 ? number(total[d] / count[d]) : Json(nullptr));
  return list;
}

std::string layer_name(const LayerTrace& layer, const std::vector<LayerTrace>& all) {
  const auto same = std::count_if(all.begin(), all.end(), [&](const LayerTrace& other) { return other.layer == layer.layer; });
  return same > 1 ? layer.site : fmt::format("layer {}", layer.layer);
}

/// Sentences that a reader can check against the charts below them.
Json findings_of(const Json& report) {
  Json list = Json::array();
  const auto say = [&](const char* topic, std::string text) { list.push_back({{"topic", topic}, {"text", std::move(text)}}); };
  const Json& layers = report["layers"];
  for (const Json& series : report["metrics"])
    if (series["name"] == "loss" && series["evaluation"] == true && series["values"].size() > 1 &&
        series["values"].front().is_number() && series["values"].back().is_number())
      say("training", fmt::format("Held-out loss went from {:.2f} to {:.2f} nats a token between steps {} and {}.",
                                  series["values"].front().get<double>(), series["values"].back().get<double>(),
                                  series["steps"].front().get<int64_t>(), series["steps"].back().get<int64_t>()));
  if (layers.empty()) {
    say("model", "This model has no routed layer: every token passes every weight, so there is no routing to report.");
    return list;
  }
  const auto extreme = [&](const auto& value) {
    size_t best = 0;
    for (size_t i = 1; i < layers.size(); ++i)
      if (value(layers[i]) > value(layers[best])) best = i;
    return best;
  };
  const auto of = [](const Json& layer, const char* group, const char* key) {
    const Json& g = layer[group];
    return g.is_object() && g[key].is_number() ? g[key].template get<double>() : 0.0;
  };
  const size_t uneven = extreme([&](const Json& l) { return of(l, "load", "max_violation"); });
  int64_t dead = 0, experts = 0;
  for (const Json& layer : layers) {
    experts += layer["experts"].get<int64_t>();
    dead += static_cast<int64_t>(std::llround(of(layer, "load", "dead_share") * layer["experts"].get<double>()));
  }
  say("load", fmt::format("The most uneven place is {}: its busiest expert takes {:.2f}× the mean load. {} of {} experts {} nearly unused.",
                          layers[uneven]["name"].get<std::string>(), 1 + of(layers[uneven], "load", "max_violation"), dead, experts,
                          dead == 1 ? "is" : "are"));
  if (report["domains"].size() > 1) {
    const size_t best = extreme([&](const Json& l) { return of(l, "domain", "normalised"); });
    const Json& domain = layers[best]["domain"];
    if (domain["information"].get<double>() > domain["chance_high"].get<double>())
      say("domains", fmt::format("Routing tells the domains apart, most in {}: it carries {:.1f} % of what it could about the domain (chance {:.1f} %), "
                                 "and the strongest tie is {:.1f}× chance.",
                                 layers[best]["name"].get<std::string>(), 100 * domain["normalised"].get<double>(),
                                 100 * domain["chance_normalised"].get<double>(), domain["max_ratio"].get<double>()));
    else
      say("domains", "No place routes the domains differently than chance would.");
  }
  const size_t lexical = extreme([&](const Json& l) { return l["token"]["input"]["score"].get<double>() - l["token"]["input"]["baseline"].get<double>(); });
  const Json& token = layers[lexical]["token"]["input"];
  say("tokens", fmt::format("In {} a token id goes to one favourite expert {:.0f} % of the time (shuffled routing: {:.0f} %).",
                            layers[lexical]["name"].get<std::string>(), 100 * token["score"].get<double>(), 100 * token["baseline"].get<double>()));
  double top = 0;
  int64_t with = 0;
  for (const Json& layer : layers)
    if (layer["confidence"].is_object()) {
      top += layer["confidence"]["mean_top"].get<double>();
      ++with;
    }
  if (with > 0) say("confidence", fmt::format("The best expert's probability is {:.0f} % on average.", 100 * top / static_cast<double>(with)));
  const size_t dropping = extreme([&](const Json& l) { return of(l, "drops", "rate"); });
  if (const double rate = of(layers[dropping], "drops", "rate"); rate > 0)
    say("drops", fmt::format("At most {:.1f} % of a place's assignments are dropped ({}); there the last quarter of a sequence loses {:+.1f} points "
                             "against the first.",
                             100 * rate, layers[dropping]["name"].get<std::string>(), 100 * of(layers[dropping], "drops", "end_minus_start")));
  else
    say("drops", "No assignment was dropped.");
  return list;
}

}  // namespace

std::string report_json(const ReportInput& input) {
  const RoutingTrace& trace = input.trace;
  Json report = {{"version", 1}, {"title", input.title}, {"facts", Json::array()}, {"findings", nullptr},
                 {"domains", trace.domains}, {"tokens", trace.rows()}, {"loss_by_domain", losses_by_domain(trace)},
                 {"left_out", trace.left_out}};
  std::vector<double> tokens(trace.domains.size());
  for (int64_t r = 0; r < trace.rows(); ++r) tokens[static_cast<size_t>(trace.domain_of(r))] += 1;
  report["tokens_by_domain"] = numbers(tokens);
  for (const auto& [name, value] : input.facts) report["facts"].push_back({name, value});

  Json metrics = Json::array();
  for (const MetricSeries& series : input.metrics) {
    // A page needs no more points than a wide chart has pixels.
    const size_t stride = std::max<size_t>(1, series.points.size() / 600);
    Json steps = Json::array(), values = Json::array();
    for (size_t i = 0; i < series.points.size(); ++i) {
      if (i % stride != 0 && i + 1 != series.points.size()) continue;
      steps.push_back(series.points[i].first);
      values.push_back(number(series.points[i].second));
    }
    metrics.push_back({{"name", series.name}, {"evaluation", series.evaluation}, {"steps", steps}, {"values", values}});
  }
  report["metrics"] = std::move(metrics);

  std::map<std::string, const LoadHistory*> histories;
  for (const LoadHistory& history : input.history) histories[history.site] = &history;
  Json checkpoints = Json::array();
  for (const auto& [step, unused] : input.checkpoints) checkpoints.push_back(step);
  report["checkpoints"] = checkpoints;

  Json layers = Json::array();
  for (size_t i = 0; i < trace.layers.size(); ++i) {
    const LayerTrace& layer = trace.layers[i];
    Json one = {{"name", layer_name(layer, trace.layers)}, {"site", layer.site}, {"layer", layer.layer}, {"experts", layer.experts},
                {"kind", layer.dense ? "dense" : "pairs"}};
    one["load"] = load_of(load_report(layer));
    const std::vector<double> mass = importance(layer);
    one["importance"] = mass.empty() ? Json(nullptr) : numbers(mass);
    const auto history = histories.find(layer.site);
    one["history"] = history != histories.end() && history->second->experts == layer.experts ? history_of(*history->second) : Json(nullptr);
    const DomainReport domain = domain_report(trace, layer, input.permutations);
    one["experts_per_token"] = number(domain.experts_per_token);
    one["domain"] = domain_of(domain);
    one["token"] = tokens_of(input, layer);
    const CoactivationReport together = coactivation_report(layer);
    one["coactivation"] = together.chance > 0
        ? Json{{"conditional", matrix(together.conditional)}, {"chance", number(together.chance)}, {"order", together.order}} : Json(nullptr);
    one["transition"] = nullptr;
    if (i + 1 < trace.layers.size()) {
      const Table transition = layer_transition(layer, trace.layers[i + 1]);
      if (transition.rows > 0)
        one["transition"] = {{"to", layer_name(trace.layers[i + 1], trace.layers)}, {"share", matrix(transition)},
                             {"chance", number(domain_report(trace, trace.layers[i + 1], 0).chance)}};
    }
    const ConfidenceReport confidence = confidence_report(layer);
    one["confidence"] = confidence.available
        ? Json{{"top", numbers(confidence.top)}, {"entropy", numbers(confidence.entropy)}, {"mean_top", number(confidence.mean_top)},
               {"mean_entropy", number(confidence.mean_entropy)}} : Json(nullptr);
    one["drops"] = layer.dense ? Json(nullptr) : drops_of(drop_report(trace, layer));
    one["saturation"] = saturation_of(input, i);
    layers.push_back(std::move(one));
  }
  report["layers"] = std::move(layers);
  report["findings"] = findings_of(report);
  report["samples"] = samples_of(input);
  return json_text(report);
}

std::vector<std::string> report_findings(const std::string& json) {
  std::vector<std::string> result;
  const Json report = ordered_json_from(json);
  for (const auto& finding : report["findings"]) result.push_back(finding["text"].get<std::string>());
  return result;
}

}  // namespace switchyard
