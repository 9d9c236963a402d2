#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/base/random.h"
#include "switchyard/inspect/report.h"
#include "tests/inspect/synthetic.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using switchyard::testing::Decision;
using switchyard::testing::expect_error;
using switchyard::testing::trace_of;

const std::vector<std::string> kDomains{"c", "python", "manual", "scripture", "german"};

/// Routing that grows more domain-bound with depth: with probability `bound` a token goes to its domain's experts.
RoutingTrace planted_trace(int64_t layers, int64_t experts, int64_t k, int64_t rows_a_domain, double noise, uint64_t seed) {
  const auto domains = static_cast<int64_t>(kDomains.size());
  const int64_t length = 64, segments_a_domain = rows_a_domain / length, rows = rows_a_domain * domains;
  const Segments segments = Segments::equal(domains * segments_a_domain, length);
  std::vector<int64_t> domain, tokens, next;
  for (int64_t s = 0; s < segments.count(); ++s) domain.push_back(s % domains);
  const Streams random(seed);
  const at::Tensor draws = random.uniform({layers, rows, k}, {.purpose = "draws"}, at::kDouble);
  const at::Tensor words = random.uniform({rows}, {.purpose = "words"}, at::kDouble);
  for (int64_t r = 0; r < rows; ++r) {
    const double u = words[r].item<double>();
    tokens.push_back(32 + static_cast<int64_t>(90 * u * u) + 10 * domain[static_cast<size_t>(r / length)]);
  }
  for (int64_t r = 0; r < rows; ++r) next.push_back((r + 1) % length == 0 ? -1 : tokens[static_cast<size_t>(r + 1)]);
  std::vector<Decision> decisions;
  for (int64_t l = 0; l < layers; ++l) {
    Decision decision{.experts = experts, .site = "layers." + std::to_string(l + 1) + ".feed_forward", .layer = l + 1};
    const double bound = (1 - noise) * static_cast<double>(l + 1) / static_cast<double>(layers);
    at::Tensor probabilities = at::zeros({rows, experts}, at::kDouble);
    auto p = probabilities.accessor<double, 2>();
    const auto u = draws.accessor<double, 3>();
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<int64_t> set;
      for (int64_t j = 0; j < k; ++j) {
        const double x = u[l][r][j];
        int64_t e = x < bound ? (domain[static_cast<size_t>(r / length)] * 3 + l + tokens[static_cast<size_t>(r)] % 2) % experts
                              : static_cast<int64_t>(x * 7919) % experts;
        while (std::find(set.begin(), set.end(), e) != set.end()) e = (e + 1) % experts;
        set.push_back(e);
        if (r % length > 40 && x > 0.9 && l == layers - 1) decision.dropped.push_back(r * k + j);
      }
      for (int64_t e = 0; e < experts; ++e) p[r][e] = 1.0 / static_cast<double>(experts);
      p[r][set[0]] += 0.2 + bound * u[l][r][0];
      decision.sets.push_back(std::move(set));
    }
    decision.probabilities = probabilities / probabilities.sum(1, true);
    decisions.push_back(std::move(decision));
  }
  const at::Tensor logits = random.normal({rows, 180}, {.purpose = "logits"}) +
                            4 * at::one_hot(at::tensor(next, at::kLong).clamp_min(0), 180).to(at::kFloat);
  return trace_of(decisions, segments, domain, kDomains, tokens, next, logits);
}

ReportInput planted_input(int64_t layers = 6, int64_t experts = 8, int64_t k = 2, int64_t rows = 640) {
  ReportInput input;
  input.title = "quickstart";
  input.facts = {{"model", "6 layers, 256 wide"}, {"experts", "8 a layer, 2 a token"}, {"router", "sparse-topk"},
                 {"parameters", "12.6 M, 5.1 M active"}, {"step", "800"}};
  input.trace = planted_trace(layers, experts, k, rows, 0.2, 1);
  for (int64_t i = 0; i < 4; ++i)
    input.checkpoints.emplace_back((i + 1) * 200, planted_trace(layers, experts, k, rows, 0.2 + 0.2 * static_cast<double>(3 - i), 1));
  MetricSeries loss{"loss", false, {}}, held{"loss", true, {}}, tokens{"tokens_per_second", false, {}}, balance{"losses.lb-loss", false, {}};
  std::vector<MetricSeries> by_domain;
  for (const auto& d : kDomains) by_domain.push_back({"domains." + d, true, {}});
  const Streams random(5);
  const at::Tensor noise = random.normal({81}, {.purpose = "noise"}, at::kDouble);
  for (int64_t s = 10; s <= 800; s += 10) {
    const double n = noise[s / 10].item<double>();
    loss.points.emplace_back(s, 2 + 6 * std::exp(-static_cast<double>(s) / 150) + 0.08 * n);
    tokens.points.emplace_back(s, 5200 + 120 * n);
    balance.points.emplace_back(s, 1 + 0.4 * std::exp(-static_cast<double>(s) / 90));
    if (s % 100 == 0) {
      held.points.emplace_back(s, 2.1 + 6 * std::exp(-static_cast<double>(s) / 150));
      for (size_t d = 0; d < by_domain.size(); ++d) by_domain[d].points.emplace_back(s, held.points.back().second + 0.3 * static_cast<double>(d) - 0.5);
    }
  }
  input.metrics = {loss, held, tokens, balance};
  input.metrics.insert(input.metrics.end(), by_domain.begin(), by_domain.end());
  for (const LayerTrace& layer : input.trace.layers) {
    LoadHistory history{layer.site, layer.layer, layer.experts, {}, {}, {}};
    for (int64_t s = 10; s <= 800; s += 10) {
      history.step.push_back(s);
      std::vector<double> engaged;
      for (int64_t e = 0; e < layer.experts; ++e)
        engaged.push_back(std::round(1000 * (1 + 0.9 * std::exp(-static_cast<double>(s) / 200) * std::sin(static_cast<double>(e * 2 + layer.layer)))));
      history.engaged.push_back(engaged);
      history.admitted.push_back(engaged);
    }
    input.history.push_back(std::move(history));
  }
  input.token_name = [](int32_t id) { return std::string(1, static_cast<char>(id < 127 ? id : 'z')); };
  input.pieces = [](const std::vector<int32_t>& ids) {
    std::vector<std::string> pieces;
    for (const int32_t id : ids) pieces.push_back(id % 7 == 0 ? " the" : id % 5 == 0 ? "\n" : std::string(1, static_cast<char>(id < 127 ? id : 'z')));
    return pieces;
  };
  input.permutations = 50;
  return input;
}

fs::path scratch(const std::string& name) {
  const fs::path folder = fs::path(::testing::TempDir()) / "switchyard_inspect";
  fs::create_directories(folder);
  return folder / name;
}

/// What headless Chromium makes of a page: its DOM after the scripts ran, and what it logged.
struct Browsed { std::string dom, log; };

std::string browser() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
    if (std::system((std::string("command -v ") + name + " >/dev/null 2>&1").c_str()) == 0) return name;
  return {};
}

Browsed browse(const std::string& page, const std::string& name) {
  const fs::path file = scratch(name + ".html"), dom = scratch(name + ".dom"), log = scratch(name + ".log");
  std::ofstream(file) << page;
  const std::string command = browser() + " --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir=" + scratch(name + ".profile").string() +
                              " --window-size=1280,900 --virtual-time-budget=4000 --enable-logging=stderr --dump-dom file://" + file.string() + " > " +
                              dom.string() + " 2> " + log.string();
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  // What stands before the data is what a reader sees; the rest is the scripts' own text.
  std::string text = read_file(dom);
  return {text.substr(0, text.find("<script type=\"application/json\"")), read_file(log)};
}

int64_t count(const std::string& text, const std::string& what) {
  int64_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size())) ++n;
  return n;
}

TEST(InspectReport, JsonHoldsTheSameNumbersAsTheTools) {
  const ReportInput input = planted_input();
  const auto report = json_from(report_json(input));
  ASSERT_EQ(report["layers"].size(), 6u);
  EXPECT_EQ(report["domains"].size(), 5u);
  EXPECT_EQ(report["tokens"], 3200);
  const auto& last = report["layers"][5];
  EXPECT_EQ(last["site"], "layers.6.feed_forward");
  EXPECT_NEAR(last["experts_per_token"].get<double>(), 2, 1e-9);
  EXPECT_GT(last["domain"]["normalised"].get<double>(), 0.2);
  EXPECT_GT(last["domain"]["information"].get<double>(), last["domain"]["chance_high"].get<double>());
  EXPECT_LT(report["layers"][0]["domain"]["normalised"].get<double>(), last["domain"]["normalised"].get<double>());
  EXPECT_GT(last["drops"]["rate"].get<double>(), 0);
  EXPECT_EQ(last["saturation"].size(), 4u);
  EXPECT_EQ(last["saturation"][3]["overlap"], 1);
  EXPECT_EQ(last["transition"], nullptr);
  EXPECT_EQ(report["samples"].size(), 5u);
  EXPECT_EQ(report["samples"][0]["pieces"].size(), report["samples"][0]["layers"][0]["experts"].size());
  EXPECT_FALSE(report_findings(json_text(report)).empty());
}

TEST(InspectReport, TheWholePageIsOneFileThatCanFetchNothing) {
  const std::string page = report_page(report_json(planted_input()));
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  EXPECT_EQ(page.find("{{"), page.find("{{\"")) << "a placeholder was left";
  for (const char* what : {"<link", "src=\"", "src='", "href=\"http", "@import", "url(http"}) EXPECT_EQ(page.find(what), std::string::npos) << what;
}

TEST(InspectReport, HostileTextStaysText) {
  ReportInput input = planted_input();
  const std::string evil = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>\xe2\x80\xa8\xff";
  input.title = evil;
  input.facts = {{evil, evil}};
  input.trace.domains[0] = evil;
  input.token_name = [&](int32_t) { return evil; };
  input.pieces = [&](const std::vector<int32_t>& ids) { return std::vector<std::string>(ids.size(), evil); };
  const std::string json = report_json(input), page = report_page(json);
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_EQ(count(page, "</script>"), count(report_page("{}"), "</script>"));
  EXPECT_NE(json_from(json)["title"].get<std::string>().find("\xef\xbf\xbd"), std::string::npos) << "the broken byte became U+FFFD";
  if (browser().empty()) GTEST_SKIP() << "no Chromium here: the page was not opened";
  const Browsed seen = browse(page, "hostile");
  EXPECT_EQ(seen.dom.find("<img"), std::string::npos);
  EXPECT_EQ(seen.log.find("CONSOLE"), std::string::npos) << seen.log;
  EXPECT_NE(seen.dom.find("data-ready=\"yes\""), std::string::npos);
}

TEST(InspectReport, ChromiumDrawsEveryChartWithoutAComplaint) {
  if (browser().empty()) GTEST_SKIP() << "no Chromium here: install the package chromium to open the page";
  const Browsed seen = browse(report_page(report_json(planted_input())), "planted");
  EXPECT_EQ(seen.log.find("CONSOLE"), std::string::npos) << seen.log;
  EXPECT_NE(seen.dom.find("data-ready=\"yes\""), std::string::npos);
  for (const char* id : {"training", "load", "domains", "tokens", "together", "confidence", "drops", "settling", "text"})
    EXPECT_NE(seen.dom.find("<section class=\"part\" id=\"" + std::string(id) + "\""), std::string::npos) << id;
  EXPECT_GE(count(seen.dom, "<canvas"), 12);
  EXPECT_GE(count(seen.dom, "class=\"tok"), 220);
  EXPECT_GE(count(seen.dom, "class=\"chip"), 8);
  EXPECT_EQ(seen.dom.find("NaN"), std::string::npos);
  EXPECT_EQ(seen.dom.find("undefined</"), std::string::npos);
}

TEST(InspectReport, ADenseModelGetsAnHonestPage) {
  ReportInput input = planted_input();
  input.trace.layers.clear();
  input.history.clear();
  input.checkpoints.clear();
  const std::string json = report_json(input);
  const auto findings = report_findings(json);
  ASSERT_EQ(findings.size(), 2u);  // how the loss went, and that nothing is routed
  EXPECT_NE(findings[1].find("no routed layer"), std::string::npos);
  if (browser().empty()) GTEST_SKIP() << "no Chromium here: the page was not opened";
  const Browsed seen = browse(report_page(json), "dense");
  EXPECT_EQ(seen.log.find("CONSOLE"), std::string::npos) << seen.log;
  EXPECT_NE(seen.dom.find("id=\"training\""), std::string::npos);
  EXPECT_EQ(seen.dom.find("id=\"load\""), std::string::npos);
}

TEST(InspectReport, LargeModelsStaySmall) {
  const std::string json = report_json(planted_input(32, 64, 8, 320));
  EXPECT_LT(json.size(), size_t{12} << 20);
  if (browser().empty()) GTEST_SKIP() << "no Chromium here: the page was not opened";
  const Browsed seen = browse(report_page(json), "large");
  EXPECT_EQ(seen.log.find("CONSOLE"), std::string::npos) << seen.log;
  EXPECT_LT(count(seen.dom, "<rect"), 2000) << "cells belong on canvases";
}

}  // namespace
}  // namespace switchyard
