// The MoE layer as a whole: every router, admission and expert of the registry against plain loops, edge
// cases, gradients, sharing, overrides, losses, records and refusals.
#include "tests/layer/layer_support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::expect_gradients;
using testing::Layer;
using testing::Pass;
using testing::randn;
using testing::set_facts;

std::vector<std::string> slugs_of(const char* interface) {
  std::vector<std::string> list;
  for (const Method* method : Registry::instance().of(interface)) list.push_back(method->card.slug);
  return list;
}

/// Options that a method cannot do without, by slug.
std::string with_needed_options(const char* interface, const std::string& slug) {
  std::string text = "{type: " + slug;
  for (const Field& field : Registry::instance().find(interface, slug).options->fields) {
    if (!field.required) continue;
    if (field.name == "hidden") text += ", hidden: 5";
    else ADD_FAILURE() << "this test has no value for " << interface << " " << slug << ": " << field.name;
  }
  return text + "}";
}

at::Tensor plain(const MoeLayer& layer, const Routed& routed, const at::Tensor& x, const Context& c, bool blends_outputs) {
  if (const auto* blend = std::get_if<TokenBlend>(&routed.engagement)) return testing::plain_blend(layer.bank(), x, *blend, c);
  const Selection& s = *routed.selection();
  if (s.run == Run::rows) return testing::plain_rows(layer.bank(), x, s, layer.station()->combine(), c);
  const at::Tensor dense = testing::what_multiplies(routed);
  if (s.run == Run::merged && !blends_outputs) return testing::plain_merged(layer.bank(), x, s, dense, c);
  // Gated, or a kind whose merged weights mean the merged outputs (low-rank products).
  const at::Tensor of_row = s.unit_of_row.defined() ? dense.index_select(0, s.unit_of_row) : dense;
  return (testing::one_by_one(layer.bank(), x, c) * of_row.unsqueeze(2)).sum(1);
}

/// Runs one combination at several sizes against the loop; how many sizes ran. What cannot be combined must say so.
int compare_with_loop(const std::string& router, const std::string& admission, const std::string& expert) {
  SCOPED_TRACE(router + " " + admission + " " + expert);
  const std::string places = admission == "dropless" ? admission : "{type: " + admission + ", evaluation_factor: 0.7, minimum: 1}";
  const Layer l("{experts: 4, router: " + with_needed_options("router", router) + ", admission: " + places +
                ", expert: " + with_needed_options("expert", expert) + "}");
  int ran = 0;
  for (int64_t rows : {0, 1, 9}) {
    Pass pass(rows, rows == 9 ? 3 : 1);
    set_facts(pass);
    const at::Tensor x = randn({rows, 6}, 5);
    try {
      auto [y, record] = l.layer.run(x, pass.context);
      EXPECT_LT(difference(y, plain(l.layer, record.routed, x, pass.context, expert == "lora")), 1e-6) << rows;
      ++ran;
    } catch (const Error& error) {
      const bool told = (error.code() == "routing.run" && admission != "dropless") ||
                        (error.code() == "experts.merge" && (expert == "zero-expert" || expert == "copy-expert"));
      EXPECT_TRUE(told) << rows << ": " << error.what();
    }
  }
  return ran;
}

TEST(MoeLayer, EveryRouterWithEveryExpertAndEveryAdmissionEqualsALoop) {
  int ran = 0;
  for (const std::string& router : slugs_of("router")) {
    for (const std::string& expert : slugs_of("expert")) ran += compare_with_loop(router, "dropless", expert);
    for (const std::string& admission : slugs_of("admission")) ran += compare_with_loop(router, admission, "relu");
  }
  EXPECT_GT(ran, 60);
}

TEST(MoeLayer, EveryCombinePolicyEqualsALoop) {
  for (const char* renormalise : {"never", "before_drop", "after_drop"})
    for (const char* overflow : {"zero", "identity", "scaled_identity"}) {
      Layer l(fmt::format("{{experts: 4, expert: {{type: swiglu, hidden: 5}}, router: {{type: sparse-topk, softmax: all}}, "
                          "admission: {{type: capacity, evaluation_factor: 0.3, minimum: 0}}, "
                          "combine: {{renormalise: {}, overflow: {}, scale: 2.5, evaluation_scale: 0.5}}}}", renormalise, overflow));
      Pass pass(12);
      const at::Tensor x = randn({12, 6}, 5);
      auto [y, record] = l.layer.run(x, pass.context);
      EXPECT_LT(difference(y, plain(l.layer, record.routed, x, pass.context, false)), 1e-6) << renormalise << overflow;
      const Selection& s = *record.selection();
      const at::Tensor by_row = s.kept.view({12, 2}).sum(1);
      EXPECT_TRUE((by_row == 0).any().item<bool>() && (by_row == 1).any().item<bool>()) << "the case should have both";
    }
}

TEST(MoeLayer, ScaledIdentityReturnsTheRowTimesTheWeightItWouldHaveHad) {
  // Weights sum to 1 before dropping: a row that lost both experts returns itself times the scale.
  Layer l("{experts: 2, expert: {type: relu, hidden: 3}, router: {type: sparse-topk, k: 2}, admission: {type: capacity, "
          "evaluation_factor: 0, minimum: 1}, combine: {renormalise: before_drop, overflow: scaled_identity, scale: 3}}");
  Pass pass(2);
  const at::Tensor x = randn({2, 6}, 1);
  EXPECT_LT(difference(l(x, pass.context)[1], x[1] * 3), 1e-6);
}

TEST(MoeLayer, AllTokensToOneExpertAndExpertsWithoutAnyToken) {
  Layer l("{experts: 5, expert: {type: swiglu, hidden: 4}, router: {type: sparse-topk, k: 1, softmax: all}}");
  const at::Tensor forced = at::full({7, 1}, 3, at::kLong);
  const Overrides wish{.k = {}, .capacity = {}, .allowed = {}, .forced = forced};
  Pass pass(7, 1, Phase::train);
  pass.context.overrides = &wish;
  const at::Tensor x = randn({7, 6}, 1);
  auto [y, record] = l.layer.run(x, pass.context);
  EXPECT_LT(difference(y, plain(l.layer, record.routed, x, pass.context, false)), 1e-6);
  y.sum().backward();
  const at::Tensor grad = l["moe.experts.up"].grad();
  EXPECT_EQ(grad.abs().sum({1, 2}).nonzero().view({-1}).item<int64_t>(), 3);
  EXPECT_EQ(pair_counts(*record.selection(), true)[3].item<int64_t>(), 7);
}

TEST(MoeLayer, KEqualToEAndOneExpertAreTheDenseMixture) {
  for (int64_t experts : {1, 3}) {
    const std::string common = fmt::format("{{experts: {0}, expert: {{type: gelu, hidden: 4}}, router: ", experts);
    Layer l(common + fmt::format("{{type: sparse-topk, k: {}}}}}", experts));
    Pass pass(5);
    const at::Tensor x = randn({5, 6}, 1);
    const at::Tensor gate = at::linear(x, l["moe.router.weight"]).softmax(-1);
    const at::Tensor expected = at::bmm(gate.unsqueeze(1), l.layer.bank().run_all(x, pass.context)).squeeze(1);
    EXPECT_LT(difference(l(x, pass.context), expected), 1e-6);
  }
}

TEST(MoeLayer, NotANumberIsNamedNotRouted) {
  Layer l("{experts: 3, expert: {type: relu, hidden: 3}, router: sparse-topk}");
  Pass pass(4);
  at::Tensor x = randn({4, 6}, 1);
  x[2][1] = std::nan("");
  const Error error = expect_error([&] { l(x, pass.context); });
  EXPECT_EQ(error.code(), "routing.nan");
  EXPECT_NE(error.message().find("row 2"), std::string::npos) << error.message();
}

TEST(MoeLayer, GradientsOfTheWholeLayerEqualFiniteDifferences) {
  for (const std::string& router : slugs_of("router")) {
    if (router == "mmoe") continue;  // below, with its outputs
    Layer l("{experts: 3, expert: {type: swiglu, hidden: 2}, shared: {expert: {type: relu, hidden: 2}, gate: softmax}, router: " +
            with_needed_options("router", router) + ", losses: [{type: lb-loss, coefficient: 0.3}, router-z]}", 3, 3);
    Pass pass(5, 1, Phase::train);
    set_facts(pass);
    pass.facts.segments.causal = false;
    at::Tensor x = randn({5, 3}, 1).requires_grad_();
    std::vector<at::Tensor> leaves = l.leaves();
    leaves.push_back(x);
    SCOPED_TRACE(router);
    expect_gradients([&] {
      pass.records.clear();
      at::Tensor y = l(x, pass.context);
      const at::Tensor extra = total(routing_losses({l.layer.station()}, pass.records, {}, pass.context));
      return extra.defined() ? at::cat({y.view({-1}), extra.view({1}).to(y.scalar_type())}) : y.view({-1});
    }, leaves, 1e-5);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(MoeLayer, GradientsThroughDroppingAndItsOverflow) {
  Layer l("{experts: 3, expert: {type: gelu, hidden: 2}, router: {type: sparse-topk, softmax: all}, admission: {type: capacity, "
          "factor: 0.3, minimum: 0}, combine: {renormalise: after_drop, overflow: scaled_identity}}", 3, 3);
  Pass pass(6, 1, Phase::train);
  at::Tensor x = randn({6, 3}, 1).requires_grad_();
  std::vector<at::Tensor> leaves = l.leaves();
  leaves.push_back(x);
  expect_gradients([&] { return l(x, pass.context); }, leaves, 1e-4);
}

TEST(MoeLayer, GivenRoutingIsFollowedAndMustFit) {
  Layer l("{experts: 3, expert: {type: swiglu, hidden: 4}, router: sparse-topk}");
  Pass pass(5);
  const at::Tensor x = randn({5, 6}, 1), other = randn({5, 6}, 2);
  const auto routed = l.layer.station()->decide(other, pass.context);
  auto [y, record] = l.layer.run(x, pass.context, routed);
  EXPECT_LT(difference(y, plain(l.layer, *routed, x, pass.context, false)), 1e-6);
  EXPECT_TRUE(record.selection()->expert.equal(routed->selection()->expert));
  const Error rows = expect_error([&] { l.layer.run(x.slice(0, 0, 4), pass.context, routed); });
  EXPECT_EQ(rows.code(), "layer.given");
  EXPECT_NE(rows.message().find("over 5 rows, but 4 rows came"), std::string::npos) << rows.message();
  Layer wider("{experts: 4, expert: {type: swiglu, hidden: 4}, router: sparse-topk}");
  EXPECT_NE(expect_error([&] { wider.layer.run(x, pass.context, routed); }).message().find("over 3 experts"), std::string::npos);
}

TEST(MoeLayer, ADecisionSharedByNameIsMadeOnceAndFollowed) {
  const std::string bank = "experts: 3, expert: {type: swiglu, hidden: 4}, ";
  Layer first("{" + bank + "router: sparse-topk, share_routing: block, losses: lb-loss}", 6, 6, "query");
  Layer second("{" + bank + "router: none, share_routing: block}", 6, 6, "value");
  EXPECT_FALSE(second.schema.find("value.router.weight"));
  EXPECT_FALSE(second.layer.station()->decides());
  Pass pass(5, 1, Phase::train);
  const at::Tensor x = randn({5, 6}, 1), z = randn({5, 6}, 2);
  first(x, pass.context);
  const at::Tensor y = second(z, pass.context);
  ASSERT_EQ(pass.records.all().size(), 2u);
  EXPECT_TRUE(pass.records.all()[1].selection()->expert.is_same(pass.records.all()[0].selection()->expert));
  EXPECT_EQ(pass.records.all()[1].place.site, "value");
  EXPECT_LT(difference(y, plain(second.layer, pass.records.all()[0].routed, z, pass.context, false)), 1e-6);
  // The loss belongs to the place that decided.
  const auto terms = routing_losses({first.layer.station(), second.layer.station()}, pass.records, {}, pass.context);
  Records alone;
  alone.add(pass.records.all()[0]);
  ASSERT_EQ(terms.size(), 1u);
  EXPECT_EQ(terms[0].value.item<double>(), routing_losses({first.layer.station()}, alone, {}, pass.context)[0].value.item<double>());
  // A later decision of the name replaces it; both train the router that decided.
  y.sum().backward();
  EXPECT_GT(first["query.router.weight"].grad().abs().max().item<double>(), 0);
}

TEST(MoeLayer, FollowingWithoutADecisionIsRefused) {
  const std::string bank = "{experts: 3, expert: {type: swiglu, hidden: 4}, router: none";
  EXPECT_EQ(expect_error([&] { Layer l(bank + "}"); }).code(), "layer.router");
  EXPECT_EQ(expect_error([&] { Layer l(bank + ", share_routing: a, losses: lb-loss}"); }).code(), "layer.router");
  Layer follower(bank + ", share_routing: a}");
  Pass pass(5);
  const at::Tensor x = randn({5, 6}, 1);
  const Error none = expect_error([&] { follower(x, pass.context); });
  EXPECT_EQ(none.code(), "routing.share");
  EXPECT_NE(none.message().find("no place before it made one"), std::string::npos) << none.message();
  pass.context.routed = nullptr;
  EXPECT_EQ(expect_error([&] { follower(x, pass.context); }).code(), "routing.share");
}

TEST(MoeLayer, RunTimeOverridesAreHonoured) {
  Layer l("{experts: 4, expert: {type: swiglu, hidden: 4}, router: {type: sparse-topk, k: 2, softmax: all}, "
          "admission: {type: capacity, evaluation_factor: 10}, shared: {expert: {type: relu, hidden: 3}}}");
  Pass pass(8);
  const at::Tensor x = randn({8, 6}, 1);
  const auto run = [&](const Overrides& wish) {
    pass.context.overrides = &wish;
    return l.layer.run(x, pass.context);
  };
  const at::Tensor plain_y = run({}).first;
  EXPECT_EQ(run({.k = 3}).second.selection()->per_unit, 3);
  const auto limited = run({.k = {}, .capacity = 0.25}).second;
  EXPECT_LT(limited.selection()->kept.sum().item<int64_t>(), 16);
  const at::Tensor allowed = at::tensor({1, 0, 1, 1}, at::kLong).to(at::kBool);
  const auto masked = run({.k = {}, .capacity = {}, .allowed = allowed}).second;
  EXPECT_EQ(pair_counts(*masked.selection(), false)[1].item<int64_t>(), 0);
  const at::Tensor forced = at::tensor({2, 1}, at::kLong).expand({8, 2}).contiguous();
  EXPECT_TRUE(run({.k = {}, .capacity = {}, .allowed = {}, .forced = forced}).second.selection()->expert.view({8, 2}).equal(forced));
  const at::Tensor without = run({.k = {}, .capacity = {}, .allowed = {}, .forced = {}, .always_off = true}).first;
  const at::Tensor shared = at::linear(at::linear(x, l["moe.shared.up"]).relu(), l["moe.shared.down"]);
  EXPECT_LT(difference(without + shared, plain_y), 1e-6);
  EXPECT_EQ(expect_error([&] { run({.k = 5}); }).code(), "routing.k_range");
  const Error few = expect_error([&] { run({.k = 4, .capacity = {}, .allowed = allowed}); });
  EXPECT_NE(few.message().find("only 3 of 4 experts are allowed"), std::string::npos) << few.message();
  EXPECT_EQ(expect_error([&] { run({.k = {}, .capacity = {}, .allowed = allowed.slice(0, 0, 3)}); }).code(), "routing.allowed");
  EXPECT_EQ(expect_error([&] { run({.k = {}, .capacity = {}, .allowed = {}, .forced = forced + 3}); }).code(), "routing.forced");
}

TEST(MoeLayer, MergedAndGatedRunsFollowTheCombinePolicy) {
  for (const char* run : {"merged", "gated"}) {
    const std::string head = fmt::format("{{experts: 4, expert: {{type: swiglu, hidden: 4}}, router: {{type: sparse-topk, run: {}, softmax: all}}, ", run);
    Layer l(head + "combine: {renormalise: before_drop, scale: 2}}");
    Pass pass(5);
    const at::Tensor x = randn({5, 6}, 1);
    auto [y, record] = l.layer.run(x, pass.context);
    const at::Tensor dense = testing::what_multiplies(record.routed);
    EXPECT_LT(difference(dense.sum(1), at::full({5}, 2, at::kDouble)), 1e-6) << run;
    EXPECT_LT(difference(y, plain(l.layer, record.routed, x, pass.context, false)), 1e-6) << run;
    Layer limited(head + "admission: capacity}");
    const Error error = expect_error([&] { limited(x, pass.context); });
    EXPECT_EQ(error.code(), "routing.run");
    EXPECT_NE(error.message().find("use admission: dropless instead of capacity"), std::string::npos) << error.message();
    Layer on_input(head + "combine: {on: input}}");
    EXPECT_EQ(expect_error([&] { on_input(x, pass.context); }).code(), "routing.weigh_input");
  }
}

TEST(MoeLayer, DeadGatesAreRefusedUnlessALossTrainsThem) {
  const std::string head = "{experts: 3, expert: {type: relu, hidden: 3}, router: {type: sparse-topk, k: 1}";
  Pass train(4, 1, Phase::train), evaluate(4);
  const at::Tensor x = randn({4, 6}, 1);
  Layer dead(head + "}");
  const Error error = expect_error([&] { dead(x, train.context); });
  EXPECT_EQ(error.code(), "routing.dead_gate");
  EXPECT_NE(error.message().find("keep raw probabilities (softmax: all, renormalise: never), take k: 2"), std::string::npos) << error.message();
  EXPECT_NO_THROW(dead(x, evaluate.context));
  EXPECT_NO_THROW(Layer(head + ", losses: lb-loss}")(x, train.context));
  // A controller moves a bias; it does not train the gate.
  Layer biased("{experts: 3, expert: {type: relu, hidden: 3}, router: {type: sigmoid-topk, k: 1}, combine: {renormalise: before_drop}, "
               "controllers: aux-free-bias}");
  EXPECT_EQ(expect_error([&] { biased(x, train.context); }).code(), "routing.dead_gate");
}

TEST(MoeLayer, LeaksAreRefusedInCausalTrainingAndReachTellsThem) {
  const std::string head = "{experts: 3, expert: {type: relu, hidden: 3}, router: sparse-topk, admission: bpr";
  Layer l(head + "}");
  Pass pass(4, 1, Phase::train);
  const at::Tensor x = randn({4, 6}, 1);
  const Error error = expect_error([&] { l(x, pass.context); });
  EXPECT_EQ(error.code(), "routing.leak");
  EXPECT_NE(error.message().find("serving confident tokens first (bpr) lets a token see later ones"), std::string::npos) << error.message();
  EXPECT_TRUE(l.layer.reach({}, Phase::train).future);
  EXPECT_FALSE(l.layer.reach({}, Phase::generate).future);
  EXPECT_EQ(l.layer.reach({}, Phase::train).unit, Reach::Unit::batch);
  EXPECT_NO_THROW(Layer(head + ", allow_leak: true}")(x, pass.context));
  pass.facts.segments.causal = false;
  EXPECT_NO_THROW(l(x, pass.context));
}

TEST(MoeLayer, KOutOfRangeIsRefusedWhenDeclared) {
  const Error error = expect_error([] { Layer l("{experts: 3, expert: {type: relu, hidden: 3}, router: {type: sparse-topk, k: 4}}"); });
  EXPECT_EQ(error.code(), "routing.k_range");
  EXPECT_NE(error.message().find("k is 4, but the layer has 3 experts; the nearest that fits is k: 3"), std::string::npos) << error.message();
}

TEST(MoeLayer, RecordsSayWhatWasDecidedAndWhere) {
  Layer l("{experts: 4, expert: {type: relu, hidden: 3}, router: sparse-topk, admission: {type: capacity, factor: 0.5, minimum: 0}}");
  Pass pass(6, 2, Phase::train);
  Context context = pass.context.at_layer(3, "somewhere");
  context.micro = 5;
  context.place.pass = 1;
  l(randn({6, 6}, 1), context);
  ASSERT_EQ(pass.records.all().size(), 1u);
  const Record& r = pass.records.all()[0];
  EXPECT_EQ(r.place.layer, 3);
  EXPECT_EQ(r.place.site, "moe");
  EXPECT_EQ(r.place.pass, 1);
  EXPECT_EQ(r.micro, 5);
  EXPECT_EQ(r.segments.count(), 2);
  EXPECT_EQ(r.selection()->pairs(), 12);
  EXPECT_EQ(r.selection()->kept.size(0), 12);
  EXPECT_EQ(r.routed.weight.size(0), 12);
  ASSERT_EQ(r.gates().size(), 1u);
  EXPECT_EQ(r.gates()[0].probabilities.sizes(), (at::IntArrayRef{6, 4}));
  pass.context.records = nullptr;
  EXPECT_NO_THROW(l(randn({6, 6}, 1), pass.context));
}

TEST(LayerLosses, LayersAddUpAndModelScopePoolsEqualSettingsOnly) {
  const std::string head = "{experts: 4, expert: {type: relu, hidden: 3}, router: sparse-topk, losses: ";
  const auto terms_of = [&](std::vector<std::string> losses) {
    Pass pass(8, 1, Phase::train);
    std::vector<std::unique_ptr<Layer>> layers;
    std::vector<std::shared_ptr<RoutingStation>> stations;
    for (size_t i = 0; i < losses.size(); ++i) {
      layers.push_back(std::make_unique<Layer>(head + losses[i] + "}", 6, 6, "layer" + std::to_string(i)));
      (*layers.back())(randn({8, 6}, i), pass.context);
      stations.push_back(layers.back()->layer.station());
    }
    return routing_losses(stations, pass.records, {}, pass.context);
  };
  const std::string model = "{type: lb-loss, scope: model}";
  const auto one = terms_of({"lb-loss"}), two = terms_of({"lb-loss", "lb-loss"});
  ASSERT_EQ(two.size(), 1u);
  EXPECT_GT(two[0].value.item<double>(), one[0].value.item<double>() + 0.5);
  const auto pooled = terms_of({model, model});
  ASSERT_EQ(pooled.size(), 1u);
  EXPECT_LT(pooled[0].value.item<double>(), two[0].value.item<double>() - 0.5);  // near 1, not near 2
  EXPECT_EQ(terms_of({model, "{type: lb-loss, scope: model, coefficient: 0.5}"}).size(), 2u);
  const auto several = terms_of({"[lb-loss, router-z]"});
  ASSERT_EQ(several.size(), 2u);
  EXPECT_NEAR(total(several).item<double>(), 0.01 * several[0].value.item<double>() + 0.001 * several[1].value.item<double>(), 1e-12);
  EXPECT_FALSE(total({}).defined());
}

TEST(LayerLosses, MicroBatchesOfOneStepAverageToTheWhole) {
  // Accumulation: each micro-batch has its own records, so the gradient is the mean of both, not more.
  const std::string yaml = "{experts: 4, expert: {type: relu, hidden: 3}, router: sparse-topk, losses: [lb-loss, router-z]}";
  const at::Tensor x = randn({8, 6}, 3);
  const auto gradient = [&](int64_t micro_batches) {
    Layer l(yaml);
    for (int64_t m = 0; m < micro_batches; ++m) {
      Pass pass(8, 1, Phase::train);
      l(x, pass.context);
      (total(routing_losses({l.layer.station()}, pass.records, {}, pass.context)) / micro_batches).backward();
    }
    return l["moe.router.weight"].grad();
  };
  EXPECT_LT(difference(gradient(1), gradient(2)), 1e-12);
}

TEST(LayerLosses, WhatAPlaceAddsItselfIsATermOfItsName) {
  Pass pass(2);
  for (double value : {0.25, 0.5}) {
    Record record;
    record.losses["mod"] = at::full({}, value, at::kDouble);
    pass.records.add(record);
  }
  const auto terms = routing_losses({}, pass.records, {}, pass.context);
  ASSERT_EQ(terms.size(), 1u);
  EXPECT_EQ(terms[0].name, "mod");
  EXPECT_EQ(total(terms).item<double>(), 0.75);
}

}  // namespace
}  // namespace switchyard
