// Hash layers (Roller et al. 2021): the expert is a fixed function of token ids, so there is neither a
// gate nor a balance loss. Several hashes share the expert's width: with n hashes the experts are n
// equal parts, hash j picks one of part j, and the narrow experts' sum is the paper's concatenation.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>

#include "switchyard/base/error.h"
#include "switchyard/routing/fixed/hash.h"
#include "switchyard/routing/fixed/hash_table.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// What is hashed.
enum class HashOf { token, previous, bigram, position };

struct HashOptions {
  HashOf of = HashOf::token;
  HashTable table = HashTable::random;
  int64_t hashes = 1;
  int64_t seed = 0;
  bool same_everywhere = false;
  int64_t vocabulary = 0;
  std::string counts;
  static void describe(Fields<HashOptions>& f) {
    f.title("Hash layer", "The expert is a fixed function of the token id.");
    f("of", &HashOptions::of, "what is hashed: the token, the one before, both, or the position")
        .choices({"token", "previous", "bigram", "position"});
    f("table", &HashOptions::table, "random: a uniform hash; balanced: frequent tokens spread so that loads are even")
        .choices({"random", "balanced"});
    f("hashes", &HashOptions::hashes, "independent hashes; each chooses within its own part of the experts").range(1, 1 << 16);
    f("seed", &HashOptions::seed, "picks another hash").range(0);
    f("same_everywhere", &HashOptions::same_everywhere, "the same hash in every layer");
    f("vocabulary", &HashOptions::vocabulary, "number of token ids; needed by the balanced table").range(0, 1 << 24);
    f("counts", &HashOptions::counts, "file with one number a token id, how often it occurs, for the balanced table; "
      "empty = Zipf's law over the ids, which byte-pair tokenizers give out by falling frequency");
  }
};

class HashLayer : public Router {
 public:
  explicit HashLayer(HashOptions options) : options_(std::move(options)) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    const HashOptions& o = options_;
    check(size.experts % o.hashes == 0, "routing.hashes", "hash-layer: {} hashes need equal parts of the experts, but there "
          "are {}; take a multiple", o.hashes, size.experts);
    experts_ = size.experts;
    site_ = schema.prefix();
    if (o.table == HashTable::random) return;
    check(o.of == HashOf::token || o.of == HashOf::previous, "routing.hash_table",
          "hash-layer: a balanced table is over token ids; use of: token or of: previous, or table: random");
    check(o.vocabulary > 0, "routing.hash_table", "hash-layer: a balanced table needs the number of token ids; set vocabulary");
    const int64_t part = size.experts / o.hashes;
    table_ = schema.buffer("table", {o.hashes, o.vocabulary}, Init::computed([this, part] {
      std::vector<at::Tensor> tables;
      for (int64_t j = 0; j < options_.hashes; ++j)
        tables.push_back(balanced_table(token_counts(options_.counts, options_.vocabulary), part, key(j)));
      return at::stack(tables);
    }), at::kLong);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    const at::Tensor ids = hashed(context);
    check(ids.size(0) == input.x.size(0), "routing.hash_rows", "{}: {} token ids for {} rows", context.place.site, ids.size(0),
          input.x.size(0));
    const int64_t part = experts_ / options_.hashes;
    std::vector<at::Tensor> chosen;
    for (int64_t j = 0; j < options_.hashes; ++j)
      chosen.push_back((table_ ? looked_up(ids, j, context) : hash_ids(ids, key(j), part)) + j * part);
    const at::Tensor experts = at::stack(chosen, 1);
    return select_pairs(experts, at::ones(experts.sizes(), routing_rows(input.x).options().requires_grad(false)), experts_);
  }

  double engaged(int64_t) const override { return static_cast<double>(options_.hashes); }

 private:
  uint64_t key(int64_t hash) const {
    return Streams(static_cast<uint64_t>(options_.seed))
        .word({.purpose = "hash-layer", .layer = hash, .site = options_.same_everywhere ? std::string_view() : site_});
  }

  /// [T] or [T, 2] int64: what is hashed for every row; -1 stands before a sequence's first token.
  at::Tensor hashed(const Context& context) const {
    if (options_.of == HashOf::position) return context.facts.row("position", "hash-layer");
    const at::Tensor token = context.facts.row("token_id", "hash-layer");
    if (options_.of == HashOf::token) return token;
    const at::Tensor before = previous(token, context);
    return options_.of == HashOf::previous ? before : at::stack({before, token}, 1);
  }

  /// [T]: the id of the row before. When a sequence goes on from a cache, the data must say what came before.
  at::Tensor previous(const at::Tensor& token, const Context& context) const {
    const Segments& segments = context.facts.segments;
    if (context.facts.has("previous_token_id")) return context.facts.row("previous_token_id", "hash-layer");
    for (int64_t s = 0; s < segments.count(); ++s)
      if (segments.past_of(s) > 0) return context.facts.row("previous_token_id", "hash-layer (of: previous or bigram)");
    if (token.size(0) == 0) return token;
    const at::Tensor start = at::full({1}, -1, token.options());
    const at::Tensor shifted = at::cat({start, token.slice(0, 0, token.size(0) - 1)});
    return shifted.masked_fill(context.facts.row("position", "hash-layer") == 0, -1);
  }

  at::Tensor looked_up(const at::Tensor& ids, int64_t hash, const Context& context) const {
    const at::Tensor inside = ids.clamp(0, options_.vocabulary - 1);
    const at::Tensor wrong = (ids >= options_.vocabulary).nonzero();
    check(wrong.size(0) == 0, "routing.hash_table", "{}: a token id is outside the table of {}; set vocabulary to the tokenizer's size",
          context.place.site, options_.vocabulary);
    return context[table_].select(0, hash).to(ids.device()).index_select(0, inside);
  }

  HashOptions options_;
  int64_t experts_ = 0;
  std::string site_;
  Parameter table_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(hash_layer) {
  using namespace switchyard;
  registry.add<Router, HashLayer, HashOptions>(
      {.slug = "hash-layer", .name = "Hash layer", .paper = "Roller et al., Hash layers for large sparse models", .year = 2021,
       .section = "4.1.1", .room = "routing/fixed", .coupling = "none", .line = "the expert is a fixed hash of the token id",
       .recipe = "recipes/methods/hash-layer.yaml"});
}
