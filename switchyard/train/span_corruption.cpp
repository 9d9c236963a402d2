// Span corruption for encoder-decoders (Raffel et al. 2020, section 3.1.4): some spans of a text are taken out, each with a token of its
// own in its place; the decoder writes these tokens, each followed by what it stands for.
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/train/cross_entropy.h"
#include "switchyard/train/objective.h"

namespace switchyard {
namespace {

struct SpanCorruptionOptions {
  double ratio = 0.15, span = 3;
  int64_t sentinels = 100, first_sentinel = -1;

  static void describe(Fields<SpanCorruptionOptions>& f) {
    f("ratio", &SpanCorruptionOptions::ratio, "share of the tokens that are taken out").range(0.001, 0.999);
    f("span", &SpanCorruptionOptions::span, "their mean number in a span").range(1, 1 << 20).unit("tokens");
    f("sentinels", &SpanCorruptionOptions::sentinels, "so many tokens stand for spans, each one's id one less than that of the span before; "
      "a longer text is corrupted in so many spans").range(2, 1 << 20);
    f("first_sentinel", &SpanCorruptionOptions::first_sentinel, "the token that stands for the first span (T5's <extra_id_0>); -1 = the last "
      "of the vocabulary").range(-1, 1 << 24);
  }
};

class SpanCorruption : public Objective {
 public:
  explicit SpanCorruption(SpanCorruptionOptions options) : options_(options) {}
  const char* name() const override { return "span-corruption"; }
  bool gives_source() const override { return true; }

  Batch prepare(Batch batch, const Decoder& model, const Context& context) const override {
    const int64_t vocabulary = model.options().vocabulary;
    const int64_t sentinel = options_.first_sentinel < 0 ? vocabulary - 1 : options_.first_sentinel;
    check(options_.sentinels <= sentinel && sentinel < vocabulary, "train.objective",
          "span-corruption: {} sentinels from token {} downwards of a vocabulary of {}", options_.sentinels, sentinel, vocabulary);
    const at::Tensor given = batch.ids.contiguous();
    const int64_t* id = given.const_data_ptr<int64_t>();
    const Segments& segments = batch.facts.segments;
    const at::Tensor draws = context.random.uniform(batch.ids.sizes(), {.purpose = "span-corruption.cuts", .step = context.step, .micro = context.micro},
                                                    at::kDouble);
    std::vector<int64_t> source, ids, targets;
    Segments read, written;
    read.causal = false;
    for (int64_t s = 0; s < segments.count(); ++s) {
      const int64_t begin = segments.begin[static_cast<size_t>(s)], n = segments.length(s);
      corrupt(id + begin, n, draws.const_data_ptr<double>() + begin, sentinel, source, targets);
      ids.push_back(model.options().encoder->start_token);
      ids.insert(ids.end(), targets.begin() + written.rows(), targets.end() - 1);
      read.begin.push_back(static_cast<int64_t>(source.size()));
      written.begin.push_back(static_cast<int64_t>(targets.size()));
    }
    Batch changed;
    changed.ids = at::tensor(ids, at::kLong);
    changed.targets = at::tensor(targets, at::kLong);
    changed.facts = Facts(std::move(written));
    if (batch.facts.has("domain")) changed.facts.set_segment("domain", batch.facts.segment("domain", name()));
    changed.predicted = static_cast<int64_t>(targets.size());
    changed.source = at::tensor(source, at::kLong);
    changed.source_segments = std::move(read);
    return changed;
  }

  LossSum loss(Runner& runner) const override {
    const at::Tensor hidden = runner.hidden();
    CrossEntropy result = cross_entropy(runner.model(), hidden, runner.batch().targets, runner.context());
    return {std::move(result.sum), std::move(result.per_row)};
  }

 private:
  /// Adds one text, corrupted, and what stands for it. draws: [n] in [0, 1); first: the first span's sentinel.
  void corrupt(const int64_t* id, int64_t n, const double* draws, int64_t first, std::vector<int64_t>& source,
               std::vector<int64_t>& targets) const {
    const int64_t noise = n < 2 ? 0 : std::clamp<int64_t>(std::llround(static_cast<double>(n) * options_.ratio), 1, n - 1);
    const int64_t wanted = std::llround(static_cast<double>(noise) / options_.span);
    const int64_t spans = noise == 0 ? 0 : std::clamp<int64_t>(wanted, 1, std::min({noise, n - noise, options_.sentinels - 1}));
    // Spans and what stands between them take turns, beginning with what stays.
    const std::vector<int64_t> kept = parts(n - noise, spans, draws), taken = parts(noise, spans, draws + (n - noise));
    int64_t at = 0;
    for (int64_t i = 0; i < spans; ++i) {
      const int64_t sentinel = first - i;
      source.insert(source.end(), id + at, id + at + kept[static_cast<size_t>(i)]);
      at += kept[static_cast<size_t>(i)];
      source.push_back(sentinel);
      targets.push_back(sentinel);
      targets.insert(targets.end(), id + at, id + at + taken[static_cast<size_t>(i)]);
      at += taken[static_cast<size_t>(i)];
    }
    source.insert(source.end(), id + at, id + n);
    if (n == 0) source.push_back(first);
    targets.push_back(first - spans);
  }

  /// `total` in `count` parts of at least 1, all such ways alike: where the smallest draws stand a part ends.
  static std::vector<int64_t> parts(int64_t total, int64_t count, const double* draws) {
    std::vector<int64_t> place(static_cast<size_t>(std::max<int64_t>(total - 1, 0)));
    for (size_t i = 0; i < place.size(); ++i) place[i] = static_cast<int64_t>(i) + 1;
    std::sort(place.begin(), place.end(), [&](int64_t a, int64_t b) { return draws[a - 1] < draws[b - 1] || (draws[a - 1] == draws[b - 1] && a < b); });
    place.resize(static_cast<size_t>(std::max<int64_t>(count - 1, 0)));
    std::sort(place.begin(), place.end());
    place.push_back(total);
    std::vector<int64_t> lengths;
    int64_t before = 0;
    for (const int64_t end : place) {
      lengths.push_back(end - before);
      before = end;
    }
    return lengths;
  }

  SpanCorruptionOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(span_corruption) {
  using namespace switchyard;
  registry.add<Objective, SpanCorruption, SpanCorruptionOptions>(
      {.slug = "span-corruption", .name = "Span corruption", .paper = "Raffel et al., Exploring the limits of transfer learning", .year = 2020,
       .section = "beyond", .room = "train", .coupling = "none", .line = "a decoder writes the spans that its encoder's text lacks",
       .recipe = "recipes/methods/span-corruption.yaml"});
}
