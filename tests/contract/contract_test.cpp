// What all rooms share: segments and facts, contexts, parameters, cached state, sites.
#include "switchyard/contract/part.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::Pass;
using testing::randn;

Segments uneven() {
  Segments s;
  s.begin = {0, 3, 3, 5};
  s.past = {0, 0, 7};
  s.sequence = {10, 11, 12};
  return s;
}

TEST(Facts, WhatLayersShareIsMadeOnceForTheSameRows) {
  Facts facts(Segments::equal(2, 3));
  int made = 0;
  const auto positions = [&](const Facts& of) {
    return of.once("p", [&] {
      ++made;
      return std::vector<at::Tensor>{of.row("position", "test")};
    })[0];
  };
  EXPECT_TRUE(positions(facts).equal(at::tensor({0, 1, 2, 0, 1, 2}, at::kLong)));
  EXPECT_TRUE(positions(Facts(facts)).is_same(positions(facts)));
  EXPECT_EQ(made, 1);
  {
    const c10::InferenceMode guard;  // whose tensors no gradient may pass
    (void)positions(facts);
  }
  EXPECT_FALSE(positions(facts).is_inference());
  EXPECT_EQ(made, 2);
  facts.segments.past = {5, 0};
  EXPECT_TRUE(positions(facts).equal(at::tensor({5, 6, 7, 0, 1, 2}, at::kLong)));
  Facts moved = facts;
  moved.set_row("position", at::arange(6, at::kLong));
  EXPECT_TRUE(positions(moved).equal(at::arange(6, at::kLong)));
  EXPECT_TRUE(positions(facts).equal(at::tensor({5, 6, 7, 0, 1, 2}, at::kLong)));
  EXPECT_EQ(made, 4);
}

TEST(Segments, RowsKnowTheirSequenceAndPosition) {
  const Segments s = uneven();
  EXPECT_EQ(s.count(), 3);
  EXPECT_EQ(s.rows(), 5);
  EXPECT_EQ(s.length(1), 0);
  EXPECT_EQ(s.sequence_of(2), 12);
  EXPECT_TRUE(s.segment_of_row().equal(at::tensor({0, 0, 0, 2, 2}, at::kLong)));
  EXPECT_TRUE(s.position_of_row().equal(at::tensor({0, 1, 2, 7, 8}, at::kLong)));
  EXPECT_FALSE(s.uniform());
  EXPECT_TRUE(Segments::equal(2, 4).uniform());
  EXPECT_EQ(Segments().count(), 0);
  EXPECT_EQ(Segments().rows(), 0);
  EXPECT_EQ(Segments::single(0).count(), 1);
}

TEST(Segments, ASubsetOfRowsKeepsItsSequences) {
  const Segments s = uneven().take(at::tensor({1, 2, 4}, at::kLong));
  EXPECT_EQ(s.begin, (std::vector<int64_t>{0, 2, 2, 3}));
  EXPECT_EQ(s.sequence_of(2), 12);
  EXPECT_EQ(uneven().take(at::empty({0}, at::kLong)).begin, (std::vector<int64_t>{0, 0, 0, 0}));
}

TEST(Facts, AreNamedPerRowOrPerSegment) {
  Facts f(uneven());
  f.set_row("token_id", at::arange(5, at::kLong));
  f.set_segment("domain", at::tensor({4, 5, 6}, at::kLong));
  EXPECT_TRUE(f.row("domain", "me").equal(at::tensor({4, 4, 4, 6, 6}, at::kLong)));
  EXPECT_TRUE(f.row("segment", "me").equal(f.segments.segment_of_row()));
  EXPECT_TRUE(f.has("position") && f.has("token_id") && f.has("domain") && !f.has("user"));
  EXPECT_TRUE(f.segment("domain", "me").equal(at::tensor({4, 5, 6}, at::kLong)));
  const Facts some = f.take(at::tensor({1, 4}, at::kLong));
  EXPECT_TRUE(some.row("token_id", "me").equal(at::tensor({1, 4}, at::kLong)));
  EXPECT_TRUE(some.row("domain", "me").equal(at::tensor({4, 6}, at::kLong)));
  EXPECT_TRUE(some.row("position", "me").equal(at::tensor({1, 8}, at::kLong)));  // as they were
}

TEST(Facts, MissingAndMisshapenOnesAreNamed) {
  Facts f(uneven());
  f.set_segment("domain", at::zeros({3}, at::kLong));
  const Error missing = expect_error([&] { (void)f.row("user", "layers.2: hash-layer"); });
  EXPECT_EQ(missing.code(), "facts.missing");
  EXPECT_EQ(missing.message(), "layers.2: hash-layer needs the fact \"user\" of every row; the data give position, segment, domain");
  EXPECT_EQ(expect_error([&] { (void)f.segment("user", "x"); }).code(), "facts.missing");
  EXPECT_EQ(expect_error([&] { f.set_row("a", at::zeros({4})); }).code(), "facts.rows");
  EXPECT_EQ(expect_error([&] { f.set_segment("a", at::zeros({5})); }).code(), "facts.segments");
}

TEST(Context, PlacesMoveAndKeysFollowThem) {
  Pass pass(4, 1, Phase::train);
  pass.context.step = 3;
  const Context a = pass.context.at_layer(2, "layers.2.feed_forward");
  EXPECT_EQ(a.place.layer, 2);
  EXPECT_EQ(a.key("noise").step, 3);
  EXPECT_EQ(a.key("noise").site, "layers.2.feed_forward");
  const auto draw = [&](const Context& c) { return pass.random.uniform({5}, c.key("noise")); };
  EXPECT_TRUE(draw(a).equal(draw(a)));
  EXPECT_FALSE(draw(a).equal(draw(pass.context.at_layer(3, "layers.3.feed_forward"))));
  const Facts other(Segments::single(2));
  EXPECT_EQ(a.with(other).facts.segments.rows(), 2);
  EXPECT_EQ(a.with(other).place.site, a.place.site);
  EXPECT_FALSE(a.wishes().k.has_value());
}

TEST(Context, AnOverlayStandsInForAParameterDuringThePass) {
  Schema schema;
  const Parameter p = schema.in("a").add("w", {2}, Role::projection, Init::ones());
  initialise(schema, Streams(1));
  Pass pass(1);
  const Overlay overlay{{"a.w", at::full({2}, 5.0)}};
  EXPECT_EQ(pass.context[p][0].item<float>(), 1);
  pass.context.overlay = &overlay;
  EXPECT_EQ(pass.context[p][0].item<float>(), 5);
}

TEST(Parameters, AreDeclaredOnceAndBoundByShape) {
  Schema schema;
  const Parameter w = schema.in("a").in("b").add("w", {2, 3}, Role::expert, Init::normal(1), 0);
  const Parameter b = schema.buffer("count", {4});
  EXPECT_EQ(w.name(), "a.b.w");
  EXPECT_EQ(schema.count(), 6);
  EXPECT_TRUE(schema.find("a.b.w").same(w));
  EXPECT_FALSE(schema.find("a.b"));
  EXPECT_EQ(expect_error([&] { schema.in("a.b").add("w", {1}, Role::norm, Init::ones()); }).code(), "parameters.duplicate");
  EXPECT_EQ(expect_error([&] { (void)w.tensor(); }).code(), "parameters.unbound");
  const Error shape = expect_error([&] { w.bind(at::zeros({3, 2})); });
  EXPECT_EQ(shape.code(), "parameters.shape");
  EXPECT_NE(shape.message().find("a.b.w has shape [3, 2], but the model declares [2, 3]"), std::string::npos) << shape.message();
  initialise(schema, Streams(1));
  EXPECT_TRUE(w.tensor().requires_grad());
  EXPECT_FALSE(b.tensor().requires_grad());
}

TEST(Parameters, InitialValuesDependOnSeedAndNameAlone) {
  const auto value = [](uint64_t seed, std::vector<std::string> names) {
    Schema schema;
    for (const std::string& name : names) schema.add(name, {5}, Role::projection, Init::normal(1));
    initialise(schema, Streams(seed));
    return schema.find("x").tensor().detach();
  };
  EXPECT_TRUE(value(1, {"x"}).equal(value(1, {"y", "x", "z"})));
  EXPECT_FALSE(value(1, {"x"}).equal(value(2, {"x"})));
}

TEST(State, RowsGrowAndAreKeptApart) {
  ContiguousState state;
  at::Tensor expected = at::empty({0, 2}, at::kDouble);
  for (int64_t n : {3, 100, 1, 200}) {
    const at::Tensor rows = randn({n, 2}, static_cast<uint64_t>(n));
    expected = at::cat({expected, rows});
    EXPECT_TRUE(state.append("keys", 1, rows).equal(expected));
  }
  EXPECT_EQ(state.length("keys", 1), 304);
  EXPECT_EQ(state.length("keys", 2), 0);
  EXPECT_FALSE(state.get("memory", 1).defined());
  state.put("memory", 1, at::ones({2}));
  EXPECT_TRUE(state.get("memory", 1).equal(at::ones({2})));
  state.forget(1);
  EXPECT_EQ(state.length("keys", 1), 0);
  EXPECT_FALSE(state.get("memory", 1).defined());
}

/// Adds a constant after the base, or returns it alone.
struct Shift : Around {
  Shift(double by, bool alone = false) : by(by), alone(alone) {}
  void declare(const Schema& schema, const Where&) override { declared = schema.prefix(); }
  at::Tensor call(const at::Tensor& x, const Base& base, const Context& c) const override { return alone ? x + by : base(x, c) * 2 + by; }
  Reach reach(const Overrides&, Phase) const override { return {.unit = Reach::Unit::sequence, .future = by > 4, .because = std::to_string(by)}; }
  bool replaces() const override { return alone; }
  double by;
  bool alone;
  std::string declared;
};

TEST(Site, OccupantsNestTheLastOneOutermost) {
  Pass pass(2);
  Site site("layers.0.feed_forward", 0, 3, 3);
  const auto body = [](const at::Tensor& x, const Context&) { return x * 10; };
  const at::Tensor x = at::ones({2, 3});
  EXPECT_TRUE(site(x, pass.context, body).equal(x * 10));
  const auto inner = std::make_shared<Shift>(1), outer = std::make_shared<Shift>(5);
  site.occupy(inner);
  site.occupy(outer);
  EXPECT_TRUE(site(x, pass.context, body).equal((x * 20 + 1) * 2 + 5));
  EXPECT_FALSE(site.replaced());
  Schema schema;
  site.declare(schema.in("here"));
  EXPECT_EQ(inner->declared, "here.around");
  EXPECT_EQ(outer->declared, "here.around.1");
  EXPECT_TRUE(site.reach({}, Phase::train).future);
  EXPECT_EQ(site.reach({}, Phase::train).because, std::to_string(5.0));
  Site taken("x", 0, 3, 3);
  const auto alone = std::make_shared<Shift>(1, true);
  taken.occupy(alone);
  EXPECT_TRUE(taken.replaced());
  taken.declare(schema.in("there"));
  EXPECT_EQ(alone->declared, "there");
}

TEST(Reach, TheLargerOneWinsWithItsReason) {
  const Reach row, sequence{Reach::Unit::sequence, true, "a"}, batch{Reach::Unit::batch, false, "b"};
  EXPECT_EQ(larger(row, batch).because, "b");
  const Reach both = larger(sequence, batch);
  EXPECT_EQ(both.unit, Reach::Unit::batch);
  EXPECT_TRUE(both.future);
  EXPECT_EQ(both.because, "a");
  EXPECT_EQ(larger(batch, sequence).because, "a");
}

}  // namespace
}  // namespace switchyard
