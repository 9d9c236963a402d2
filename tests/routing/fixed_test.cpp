// Routers without a gate: hash layers and random routing.
#include "tests/routing/gate_fixture.h"

#include <cmath>

#include "switchyard/layer/moe_layer.h"
#include "switchyard/routing/fixed/hash.h"
#include "switchyard/routing/fixed/hash_table.h"
#include "tests/files.h"

namespace switchyard {
namespace {

using namespace testing;

/// Hash rows whose token ids are given.
Selection hashed(const GateFixture& f, const at::Tensor& token, Phase phase = Phase::evaluate, int64_t step = 0, int64_t segments = 1) {
  Pass pass(token.size(0), segments, phase, static_cast<uint64_t>(step + 1));
  pass.context.step = step;
  pass.facts.set_row("token_id", token);
  return f.select(at::zeros({token.size(0), 2}, at::kDouble), pass.context);
}

double load_cv(const at::Tensor& bucket, const std::vector<double>& counts, int64_t buckets) {
  const at::Tensor load = at::zeros({buckets}, at::kDouble).index_add(0, bucket, at::tensor(counts, at::kDouble));
  return (load.var(/*unbiased=*/false).sqrt() / load.mean()).item<double>();
}

TEST(Catalogue, hash_layer_the_same_token_has_the_same_expert_for_ever) {
  const GateFixture f("hash-layer", "{}", 8);
  const at::Tensor token = Streams(1).integers(50, {400}, {.purpose = "t"});
  const Selection a = hashed(f, token), b = hashed(f, token, Phase::train, 7), c = hashed(f, token.flip(0));
  EXPECT_TRUE(a.expert.equal(b.expert));
  EXPECT_TRUE(a.expert.equal(c.expert.flip(0)));
  EXPECT_EQ(a.weight.min().item<double>(), 1);
  EXPECT_EQ(a.weight.max().item<double>(), 1);
  EXPECT_EQ(f.schema.count(), 0);  // no router parameters
  EXPECT_TRUE(f.schema.all().empty());
}

TEST(Catalogue, hash_layer_spreads_ids_uniformly) {
  const at::Tensor bucket = hash_ids(at::arange(16000, at::kLong), 99, 16);
  const at::Tensor counts = at::bincount(bucket, {}, 16).to(at::kDouble);
  EXPECT_LT(((counts - 1000).square() / 1000).sum().item<double>(), 30.58);  // χ² with 15 degrees of freedom, p = .01
  EXPECT_FALSE(bucket.equal(hash_ids(at::arange(16000, at::kLong), 100, 16)));
  // Pairs hash by both members and their order.
  const at::Tensor pairs = at::tensor({1, 2, 2, 1, 1, 2}, at::kLong).view({3, 2});
  const at::Tensor p = hash_ids(pairs, 5, 1 << 30);
  EXPECT_EQ(p[0].item<int64_t>(), p[2].item<int64_t>());
  EXPECT_NE(p[0].item<int64_t>(), p[1].item<int64_t>());
}

TEST(Catalogue, hash_layer_balanced_table_reaches_the_floor_of_zipf) {
  const std::vector<double> zipf = token_counts("", 1000);
  const double balanced = load_cv(balanced_table(zipf, 16, 3), zipf, 16);
  EXPECT_NEAR(balanced, .29607, 5e-6);  // the most frequent id alone is .1336 of all, above 1/16
  const double random = load_cv(hash_ids(at::arange(1000, at::kLong), 3, 16), zipf, 16);
  EXPECT_GT(random, 1.5 * balanced);
}

TEST(Catalogue, hash_layer_balanced_table_is_saved_as_integers) {
  const GateFixture f("hash-layer", "{table: balanced, vocabulary: 1000}", 16);
  const Parameter table = f.schema.find("router.table");
  ASSERT_TRUE(table);
  EXPECT_EQ(table.tensor().scalar_type(), at::kLong);
  EXPECT_EQ(f.schema.count(), 0);  // a buffer, no parameter
  const at::Tensor token = Streams(1).integers(1000, {64}, {.purpose = "t"});
  EXPECT_TRUE(hashed(f, token).expert.equal(table.tensor()[0].index_select(0, token)));
  // What is loaded counts, not what the options would compute.
  table.bind(at::zeros({1, 1000}, at::kFloat) + 5);
  EXPECT_EQ(table.tensor().scalar_type(), at::kLong);
  EXPECT_TRUE(hashed(f, token).expert.eq(5).all().item<bool>());
  const Error error = expect_error([&] { hashed(f, at::full({2}, 1000, at::kLong)); });
  EXPECT_EQ(error.code(), "routing.hash_table");
  EXPECT_NE(error.message().find("outside the table of 1000"), std::string::npos);
}

TEST(Catalogue, hash_layer_counts_come_from_a_file) {
  TemporaryFolder folder;
  write_text(folder / "counts.txt", "1\n5\n1\n3\n");
  const std::vector<double> counts = token_counts((folder / "counts.txt").string(), 4);
  EXPECT_EQ(counts, (std::vector<double>{1, 5, 1, 3}));
  const at::Tensor table = balanced_table(counts, 2, 1);
  EXPECT_NE(table[1].item<int64_t>(), table[3].item<int64_t>());  // 5 | 3 + 1 + 1
  EXPECT_EQ(table[0].item<int64_t>(), table[3].item<int64_t>());
  EXPECT_EQ(table[2].item<int64_t>(), table[3].item<int64_t>());
  const Error shorter = expect_error([&] { token_counts((folder / "counts.txt").string(), 5); });
  EXPECT_EQ(shorter.code(), "routing.hash_counts");
  EXPECT_NE(shorter.message().find("4 counts"), std::string::npos);
  write_text(folder / "counts.txt", "1\nmany\n");
  const Error word = expect_error([&] { token_counts((folder / "counts.txt").string(), 2); });
  EXPECT_EQ(word.code(), "routing.hash_counts");
  EXPECT_NE(word.message().find("counts.txt:2: \"many\""), std::string::npos) << word.message();
}

TEST(Catalogue, hash_layer_previous_bigram_and_position_look_where_they_say) {
  const at::Tensor token = ids({3, 4, 3, 4, 3, 4});
  const GateFixture previous("hash-layer", "{of: previous}", 1 << 20), bigram("hash-layer", "{of: bigram}", 1 << 20),
      position("hash-layer", "{of: position}", 1 << 20);
  // Two sequences [3 4 3] and [4 3 4]; nothing comes before the first token of each.
  const at::Tensor p = hashed(previous, token, Phase::evaluate, 0, 2).expert;
  EXPECT_EQ(p[0].item<int64_t>(), p[3].item<int64_t>());
  EXPECT_EQ(p[1].item<int64_t>(), p[5].item<int64_t>());
  EXPECT_EQ(p[2].item<int64_t>(), p[4].item<int64_t>());
  EXPECT_NE(p[1].item<int64_t>(), p[2].item<int64_t>());
  const at::Tensor b = hashed(bigram, token, Phase::evaluate, 0, 2).expert;
  EXPECT_EQ(b[1].item<int64_t>(), b[5].item<int64_t>());
  EXPECT_NE(b[0].item<int64_t>(), b[2].item<int64_t>());
  const at::Tensor o = hashed(position, token, Phase::evaluate, 0, 2).expert;
  EXPECT_TRUE(o.slice(0, 0, 3).equal(o.slice(0, 3, 6)));
  // A sequence that goes on from a cache needs to be told.
  Pass pass(1, 1, Phase::generate);
  pass.facts.segments.past = {2};
  pass.facts.set_row("token_id", ids({3}));
  const Error error = expect_error([&] { previous.select(at::zeros({1, 2}, at::kDouble), pass.context); });
  EXPECT_EQ(error.code(), "facts.missing");
  EXPECT_NE(error.message().find("previous_token_id"), std::string::npos);
}

TEST(Catalogue, hash_layer_differs_by_layer_unless_told_otherwise) {
  const auto experts_at = [](const char* yaml, const char* place) {
    const auto router = Registry::instance().make<Router>("hash-layer", parse_yaml(yaml, "test"));
    Schema schema;
    router->declare(schema.in(place), {.width = 2, .experts = 64});
    Pass pass(50);
    pass.facts.set_row("token_id", at::arange(50, at::kLong));
    return std::get<Selection>(router->route({at::zeros({50, 2}, at::kDouble), {}}, pass.context)).expert;
  };
  EXPECT_FALSE(experts_at("{}", "layers.0").equal(experts_at("{}", "layers.1")));
  EXPECT_TRUE(experts_at("{same_everywhere: true}", "layers.0").equal(experts_at("{same_everywhere: true}", "layers.1")));
  EXPECT_FALSE(experts_at("{seed: 1}", "layers.0").equal(experts_at("{}", "layers.0")));
}

// Several hashes: part j of the experts holds the j-th slices of the paper's first and second matrices. With equal
// slices chosen by every hash the result is the plain hash layer over whole experts.
TEST(Catalogue, hash_layer_several_hashes_concatenate_slices_of_experts) {
  const int64_t experts = 3, hidden = 4, parts = 2, width = 5, rows = 12;
  const at::Tensor up = randn({experts, hidden, width}, 1), down = randn({experts, width, hidden}, 2), x = randn({rows, width}, 3);
  MoeLayer layer(read_options<MoeOptions>(parse_yaml(
                     "{experts: 6, expert: {type: gelu, hidden: 2}, router: {type: hash-layer, hashes: 2}}", "test")), width, width);
  Schema schema;
  layer.declare(schema.in("moe"));
  initialise(schema, Streams(3), at::kDouble);
  {
    at::NoGradGuard guard;
    // Expert j·3 + e is slice j of whole expert e.
    schema.find("moe.experts.up").tensor().copy_(
        up.view({experts, parts, hidden / parts, width}).transpose(0, 1).reshape({experts * parts, hidden / parts, width}));
    schema.find("moe.experts.down").tensor().copy_(
        down.view({experts, width, parts, hidden / parts}).permute({2, 0, 1, 3}).reshape({experts * parts, width, hidden / parts}));
  }
  Pass pass(rows);
  pass.facts.set_row("token_id", Streams(4).integers(9, {rows}, {.purpose = "t"}));
  const at::Tensor y = layer.forward(x, pass.context);
  const at::Tensor chosen = pass.records.all().at(0).selection()->expert.view({rows, parts});
  for (int64_t r = 0; r < rows; ++r) {
    at::Tensor expected = at::zeros({width}, at::kDouble);
    for (int64_t j = 0; j < parts; ++j) {
      const int64_t e = chosen[r][j].item<int64_t>() - j * experts;
      ASSERT_GE(e, 0);
      ASSERT_LT(e, experts);
      const auto part = [&](const at::Tensor& m, int64_t dim) { return m.narrow(dim, j * hidden / parts, hidden / parts); };
      expected = expected + at::matmul(part(down[e], 1), at::gelu(at::matmul(part(up[e], 0), x[r])));
    }
    EXPECT_LT(difference(y[r], expected), 1e-12);
  }
  const Error error = expect_error([&] { GateFixture f("hash-layer", "{hashes: 4}", 6); });
  EXPECT_EQ(error.code(), "routing.hashes");
}

TEST(Catalogue, hash_layer_without_token_ids_names_the_fact) {
  const GateFixture f("hash-layer", "{}", 4);
  Pass pass(2);
  const Error error = expect_error([&] { f.select(at::zeros({2, 4}, at::kDouble), pass.context); });
  EXPECT_EQ(error.code(), "facts.missing");
  EXPECT_NE(error.message().find("token_id"), std::string::npos);
  EXPECT_NE(error.message().find("hash-layer"), std::string::npos);
}

TEST(Catalogue, hash_layer_balanced_table_says_what_it_needs) {
  for (const char* wrong : {"{table: balanced}", "{table: balanced, vocabulary: 10, of: bigram}"}) {
    EXPECT_EQ(expect_error([&] { GateFixture f("hash-layer", wrong, 4); }).code(), "routing.hash_table") << wrong;
  }
}

TEST(Catalogue, random_routing_draws_are_uniform_and_independent_by_step_and_pass) {
  const GateFixture f("random-routing", "{}", 4);
  const auto draw = [&](int64_t step, int64_t pass_number) {
    Pass pass(8, 1, Phase::train);
    pass.context.step = step;
    pass.context.place.pass = pass_number;
    const at::Tensor expert = f.select(at::zeros({8, 4}, at::kDouble), pass.context).expert;
    EXPECT_TRUE(expert.eq(expert[0]).all().item<bool>()) << "one draw a batch";
    return expert[0].item<int64_t>();
  };
  std::vector<double> counts(4, 0.0);
  int64_t equal = 0;
  for (int64_t step = 0; step < 2000; ++step) {
    const int64_t a = draw(step, 0), b = draw(step, 1);
    ++counts[static_cast<size_t>(a)];
    equal += a == b;
  }
  double chi = 0;
  for (const double c : counts) chi += (c - 500) * (c - 500) / 500;
  EXPECT_LT(chi, 11.34);  // 3 degrees of freedom, p = .01
  EXPECT_NEAR(static_cast<double>(equal) / 2000, .25, 3 * std::sqrt(.25 * .75 / 2000));
  EXPECT_EQ(draw(5, 0), draw(5, 0));
}

TEST(RandomRouting, SharesDrawsAsAsked) {
  Pass train(12, 3, Phase::train), evaluate(12, 3);
  const at::Tensor x = at::zeros({12, 1000}, at::kDouble);
  const at::Tensor by_sequence = GateFixture("random-routing", "{draw: sequence}", 1000).select(x, train.context).expert.view({3, 4});
  EXPECT_TRUE(by_sequence.eq(by_sequence.select(1, 0).unsqueeze(1)).all().item<bool>());
  EXPECT_EQ(std::get<0>(at::_unique(by_sequence)).size(0), 3);
  const at::Tensor by_token = GateFixture("random-routing", "{draw: token}", 1000).select(x, train.context).expert;
  EXPECT_GT(std::get<0>(at::_unique(by_token)).size(0), 9);
  const Selection mean = GateFixture("random-routing", "{evaluation_draw: mean}", 4).select(x.narrow(1, 0, 4), evaluate.context);
  EXPECT_LT(difference(dense_weights(mean), at::full({12, 4}, .25, at::kDouble)), 1e-15);
}

}  // namespace
}  // namespace switchyard
