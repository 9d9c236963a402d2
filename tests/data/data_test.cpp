#include "switchyard/data/data.h"

#include <ATen/Parallel.h>

#include <set>

#include "switchyard/data/cache.h"
#include "switchyard/data/sources.h"
#include "tests/data/data_support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::Messages;
using testing::small_tokenizer;
using testing::TemporaryFolder;
using testing::values;
using testing::write_text;

/// Three small domains: documents of many lengths, no two equal.
struct Corpus {
  TemporaryFolder folder;
  DataOptions options;
  Corpus() {
    int number = 0;
    for (const auto& [name, count] : std::vector<std::pair<std::string, int>>{{"one", 40}, {"two", 25}, {"three", 9}}) {
      std::filesystem::create_directories(folder / name);
      for (int i = 0; i < count; ++i) {
        std::string text = fmt::format("{} {}\n", name, number++);
        for (int line = 0; line < i % 7; ++line) text += fmt::format("the row {} of expert {} is a token;\n", line, i);
        write_text(folder / name / fmt::format("{}.txt", i), text);
      }
      options.domains.push_back({.name = name, .paths = {(folder / name).string()}});
    }
    options.held_out = 0.2;
    options.sequence = 16;
    options.cache = (folder / "cache").string();
  }
  Data data(uint64_t seed = 1) const { return Data(options, small_tokenizer(), seed); }
};

/// A document's text of a segment, from its ids and last target.
std::vector<int64_t> tokens_of(const Batch& batch, int64_t segment) {
  const auto& begin = batch.facts.segments.begin;
  const auto ids = values(batch.ids), targets = values(batch.targets);
  std::vector<int64_t> tokens(ids.begin() + begin[static_cast<size_t>(segment)], ids.begin() + begin[static_cast<size_t>(segment) + 1]);
  tokens.push_back(targets[static_cast<size_t>(begin[static_cast<size_t>(segment) + 1]) - 1]);
  return tokens;
}

TEST(Data, RowsPredictTheirOwnDocument) {
  const Corpus corpus;
  Data data = corpus.data();
  EXPECT_EQ(data.domains(), (std::vector<std::string>{"one", "two", "three"}));
  for (int step = 0; step < 30; ++step) {
    const Batch batch = data.next(6);
    EXPECT_EQ(batch.predicted, 96);
    ASSERT_EQ(batch.ids.sizes(), (at::IntArrayRef{96}));
    const Segments& segments = batch.facts.segments;
    EXPECT_EQ(segments.rows(), 96);
    EXPECT_TRUE(segments.causal);
    const auto ids = values(batch.ids), targets = values(batch.targets);
    const auto labels = values(batch.facts.segment("domain", "test"));
    for (int64_t s = 0; s < segments.count(); ++s) {
      ASSERT_GT(segments.length(s), 0);
      // No segment lies over the border of two runs.
      EXPECT_EQ(segments.begin[static_cast<size_t>(s)] / 16, (segments.begin[static_cast<size_t>(s) + 1] - 1) / 16);
      for (int64_t r = segments.begin[static_cast<size_t>(s)]; r + 1 < segments.begin[static_cast<size_t>(s) + 1]; ++r)
        EXPECT_EQ(targets[static_cast<size_t>(r)], ids[static_cast<size_t>(r) + 1]);
      // The label is true: a document that begins here begins with its domain's name.
      const auto tokens = tokens_of(batch, s);
      const std::string text = small_tokenizer()->decode(tokens);
      if (tokens[0] == small_tokenizer()->begin_id() && tokens.size() > 8) {
        EXPECT_TRUE(text.starts_with(data.domains()[static_cast<size_t>(labels[static_cast<size_t>(s)])])) << text;
      }
    }
  }
}

TEST(Data, APassHasEveryTokenOnce) {
  Corpus corpus;
  corpus.options.domains.resize(1);
  corpus.options.held_out = 0;
  Data data = corpus.data();
  EXPECT_EQ(data.held_out_tokens(0), 0);
  EXPECT_TRUE(data.held_out(-1, 4, 1000).empty());
  const int64_t rows = data.training_tokens(0) - 40;  // each document's first token is predicted by nothing
  // Put the pieces of cut documents together again, over as many runs as a pass takes.
  std::multiset<std::string> passes[2];
  std::vector<int64_t> document;
  int64_t done = 0;
  while (done < 2 * rows) {
    const Batch batch = data.next(1);
    for (int64_t s = 0; s < batch.facts.segments.count() && done < 2 * rows; ++s) {
      const auto tokens = tokens_of(batch, s);
      if (document.empty()) document.push_back(tokens[0]);
      else EXPECT_EQ(document.back(), tokens[0]);
      document.insert(document.end(), tokens.begin() + 1, tokens.end());
      done += static_cast<int64_t>(tokens.size()) - 1;
      if (tokens.back() != small_tokenizer()->end_id()) continue;
      passes[done > rows].insert(small_tokenizer()->decode(document));
      document.clear();
    }
  }
  std::multiset<std::string> expected;
  for (int i = 0; i < 40; ++i) expected.insert(read_file(corpus.folder / "one" / fmt::format("{}.txt", i)));
  EXPECT_EQ(passes[0], expected);
  EXPECT_EQ(passes[1], expected);
}

TEST(Data, PassesAreShuffledDifferently) {
  Corpus corpus;
  corpus.options.domains.resize(1);
  Data data = corpus.data(), other = corpus.data(2), same = corpus.data();
  const auto first = values(data.next(40).ids);
  EXPECT_EQ(values(same.next(40).ids), first);
  EXPECT_NE(values(other.next(40).ids), first);
  DataPosition second_pass = data.position();
  second_pass.epoch[0] = 1;
  second_pass.document[0] = second_pass.token[0] = 0;
  data.seek(second_pass);
  EXPECT_NE(values(data.next(40).ids), first);
}

TEST(Data, AfterASeekEverythingGoesOnAsBefore) {
  const Corpus corpus;
  Data data = corpus.data();
  std::vector<Batch> batches;
  std::vector<Node> positions;
  for (int step = 0; step < 60; ++step) {  // several passes over the smallest domain
    positions.push_back(data.position().write());
    batches.push_back(data.next(5));
  }
  EXPECT_GT(data.position().epoch[2], 1);
  for (const size_t step : {0u, 1u, 17u, 40u, 59u}) {
    Data again = corpus.data();
    again.seek(DataPosition::read(parse_json(to_json(positions[step]), "state")));
    for (size_t i = step; i < batches.size(); ++i) {
      const Batch batch = again.next(5);
      ASSERT_EQ(values(batch.ids), values(batches[i].ids)) << step << " " << i;
      ASSERT_EQ(values(batch.targets), values(batches[i].targets));
      ASSERT_EQ(batch.facts.segments.begin, batches[i].facts.segments.begin);
      ASSERT_EQ(values(batch.facts.segment("domain", "test")), values(batches[i].facts.segment("domain", "test")));
    }
  }
}

TEST(Data, WeightsAreSharesOfTheTokens) {
  Corpus corpus;
  corpus.options.domains[0].weight = 1;
  corpus.options.domains[1].weight = 5;
  corpus.options.domains[2].weight = 0;
  Data data = corpus.data();
  std::vector<int64_t> rows(3);
  for (int step = 0; step < 60; ++step) {
    const Batch batch = data.next(4);
    const auto labels = values(batch.facts.row("domain", "test"));
    for (const int64_t label : labels) ++rows[static_cast<size_t>(label)];
  }
  EXPECT_EQ(rows[2], 0);
  EXPECT_EQ(rows[0] + rows[1], 60 * 64);
  EXPECT_NEAR(static_cast<double>(rows[0]) / (60 * 64), 1.0 / 6, 0.03);
}

TEST(Data, HeldOutDocumentsAreNeverTrainedOn) {
  Corpus corpus;
  corpus.options.sequence = 400;  // whole documents
  // The same text in two domains is on the same side in both.
  for (int i = 0; i < 40; ++i) std::filesystem::copy_file(corpus.folder / "one" / fmt::format("{}.txt", i), corpus.folder / "three" / fmt::format("copy{}.txt", i));
  Data data = corpus.data();
  std::set<std::string> held, trained;
  const auto collect = [](const Batch& batch, std::set<std::string>& into) {
    for (int64_t s = 0; s < batch.facts.segments.count(); ++s) {
      const auto tokens = tokens_of(batch, s);
      if (tokens[0] == small_tokenizer()->begin_id() && tokens.back() == small_tokenizer()->end_id()) into.insert(small_tokenizer()->decode(tokens));
    }
  };
  for (const Batch& batch : data.held_out(-1, 4, 1 << 20)) collect(batch, held);
  for (int step = 0; step < 40; ++step) collect(data.next(4), trained);
  EXPECT_GT(held.size(), 5u);
  EXPECT_GT(trained.size(), 40u);
  for (const std::string& text : held) {
    EXPECT_FALSE(trained.contains(text)) << text;
    EXPECT_TRUE(is_held_out(text, 0.2));
  }
}

TEST(Data, TheSplitHasItsShare) {
  int held = 0;
  for (int i = 0; i < 20000; ++i) held += is_held_out(fmt::format("document {}", i), 0.1);
  EXPECT_NEAR(held, 2000, 5 * 42);  // five standard deviations
  EXPECT_FALSE(is_held_out("x", 0));
}

TEST(Data, HeldOutBatchesAreAlwaysTheSame) {
  const Corpus corpus;
  Data data = corpus.data();
  const auto before = data.held_out(-1, 3, 200);
  (void)data.next(7);
  const auto after = data.held_out(-1, 3, 200);
  ASSERT_EQ(before.size(), after.size());
  ASSERT_GT(before.size(), 1u);
  int64_t predicted = 0;
  std::set<int64_t> domains;
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(values(before[i].ids), values(after[i].ids));
    predicted += before[i].predicted;
    EXPECT_EQ(before[i].predicted, before[i].ids.size(0));
    for (const int64_t d : values(before[i].facts.segment("domain", "test"))) domains.insert(d);
  }
  EXPECT_LE(predicted, 200);
  EXPECT_GT(predicted, 100);
  EXPECT_GE(domains.size(), 2u);
  // One domain, all of it: every token but the documents' first.
  int64_t rows = 0;
  for (const Batch& batch : data.held_out(0, 3, 1 << 20)) {
    rows += batch.predicted;
    EXPECT_LE(batch.ids.size(0), 48);
    for (const int64_t d : values(batch.facts.segment("domain", "test"))) EXPECT_EQ(d, 0);
  }
  EXPECT_LT(rows, data.held_out_tokens(0));
  EXPECT_GE(rows, data.held_out_tokens(0) - 40);
  EXPECT_TRUE(data.held_out(0, 3, 0).empty());
  EXPECT_EQ(expect_error([&] { (void)data.held_out(3, 1, 1); }).message(), "domain 3 of 3");
}

TEST(Data, ThreadsChangeNothing) {
  const Corpus one, two;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  Data a = one.data();
  at::set_num_threads(4);
  Data b = two.data();
  at::set_num_threads(threads);
  for (int64_t d = 0; d < 3; ++d) EXPECT_EQ(a.training_tokens(d), b.training_tokens(d));
}

TEST(DataCache, IsUsedAgainUntilSomethingChanges) {
  Corpus corpus;
  const auto tokenised = [&] {
    Messages messages;
    (void)corpus.data();
    return messages.infos().size();
  };
  EXPECT_EQ(tokenised(), 3u);
  EXPECT_EQ(tokenised(), 0u);
  write_text(corpus.folder / "two" / "new.txt", "one more");
  EXPECT_EQ(tokenised(), 1u);
  corpus.options.domains[0].limit_bytes = 900;  // which files hangs on their paths: enough that some are for training
  EXPECT_EQ(tokenised(), 1u);
  corpus.options.domains[1].weight = 4;  // says nothing about tokens
  corpus.options.sequence = 32;
  EXPECT_EQ(tokenised(), 0u);
  corpus.options.held_out = 0.3;
  EXPECT_EQ(tokenised(), 3u);
  corpus.options.document_bytes = 100;
  EXPECT_EQ(tokenised(), 3u);
}

TEST(DataCache, DamageIsMended) {
  Corpus corpus;
  corpus.options.domains.resize(1);
  Data data = corpus.data();
  const auto expected = values(data.next(8).ids);
  for (const auto& entry : std::filesystem::directory_iterator(corpus.folder / "cache")) {
    // A new file, since the old one is mapped above.
    std::filesystem::remove(entry.path() / "training.tokens");
    write_text(entry.path() / "training.tokens", "x");
  }
  Messages messages;
  EXPECT_EQ(values(corpus.data().next(8).ids), expected);
  ASSERT_EQ(messages.warnings().size(), 1u);
  EXPECT_TRUE(messages.warnings()[0].starts_with("domain \"one\" is tokenised again: ")) << messages.warnings()[0];
}

TEST(DataCache, SaysWhenItCannotBeWritten) {
  Corpus corpus;
  write_text(corpus.folder / "file", "");
  corpus.options.cache = (corpus.folder / "file").string();
  const Error error = expect_error([&] { (void)corpus.data(); });
  EXPECT_EQ(error.code(), "data.cache");
  EXPECT_TRUE(error.message().starts_with("domain \"one\": ")) << error.message();
  EXPECT_TRUE(error.message().ends_with("; free some space or set data.cache to another folder")) << error.message();
}

TEST(DataCache, NothingIsLeftOfAFailure) {
  Corpus corpus;
  write_text(corpus.folder / "one" / "bad.jsonl", "{");
  EXPECT_EQ(expect_error([&] { (void)corpus.data(); }).code(), "data.json");
  EXPECT_TRUE(std::filesystem::is_empty(corpus.folder / "cache"));
}

TEST(DataErrors, EachNamesTheWayOut) {
  Corpus corpus;
  const auto error_of = [](const DataOptions& options) {
    return expect_error([&] { Data data(options, small_tokenizer(), 1); });
  };
  DataOptions options = corpus.options;
  options.domains.clear();
  EXPECT_EQ(error_of(options).code(), "data.domains");
  EXPECT_EQ(error_of(options).message(), "the recipe lists no data; give data.domains at least one entry with name and paths");
  options.domains = {corpus.options.domains[0], corpus.options.domains[0]};
  EXPECT_EQ(error_of(options).message(), "two domains are named \"one\"");
  options.domains.resize(1);
  options.domains[0].weight = 0;
  EXPECT_EQ(error_of(options).message(), "the weights of the domains that have text are all zero");

  write_text(corpus.folder / "blank.txt", " \n ");
  options.domains = {{.name = "blank", .paths = {(corpus.folder / "blank.txt").string()}}};
  EXPECT_EQ(error_of(options).code(), "data.empty");
  EXPECT_EQ(error_of(options).message(), "domain \"blank\": its 1 files hold no text");

  const std::string binary = (corpus.folder / "x.bin").string();
  write_text(binary, std::string("a\0b", 3));
  options.domains = {{.name = "binary", .paths = {binary}}};
  EXPECT_EQ(error_of(options).code(), "data.encoding");
  EXPECT_EQ(error_of(options).message(), "domain \"binary\": nothing in its 1 files is UTF-8 text (" + binary +
                                             " for example); convert them, or name a filter that reads them");

  // A text whose hash holds it out.
  int i = 0;
  while (!is_held_out(fmt::format("text {}", i), 0.2)) ++i;
  write_text(corpus.folder / "held.txt", fmt::format("text {}", i));
  options.domains = {{.name = "held", .paths = {(corpus.folder / "held.txt").string()}}};
  EXPECT_EQ(error_of(options).code(), "data.empty");
  EXPECT_EQ(error_of(options).message(), "domain \"held\": all its documents (1) are held out; give it more text, lower data.held_out or data.document_bytes");

  options.domains[0].filter = "nothing";
  EXPECT_EQ(error_of(options).code(), "data.filter");
}

TEST(DataErrors, AbsentDomainsMayBeLeftOut) {
  Corpus corpus;
  corpus.options.domains[1].paths = {"/nowhere/at/all"};
  EXPECT_EQ(expect_error([&] { (void)corpus.data(); }).code(), "data.missing");
  corpus.options.missing_ok = true;
  Messages messages;
  Data data = corpus.data();
  EXPECT_EQ(messages.warnings().size(), 1u);
  EXPECT_EQ(data.domains().size(), 3u);  // labels keep their meaning
  EXPECT_EQ(data.training_tokens(1), 0);
  EXPECT_TRUE(data.held_out(1, 1, 100).empty());
  for (int step = 0; step < 5; ++step)
    for (const int64_t label : values(data.next(8).facts.segment("domain", "test"))) EXPECT_NE(label, 1);
  for (DomainOptions& domain : corpus.options.domains) domain.paths = {"/nowhere/at/all"};
  EXPECT_EQ(expect_error([&] { (void)corpus.data(); }).message(), "none of the 3 domains has files; the warnings above name their packages");
}

TEST(DataErrors, WarnsOfWhatWasLeftOut) {
  Corpus corpus;
  corpus.options.domains.resize(1);
  write_text(corpus.folder / "one" / "latin1.txt", "\xE9t\xE9");
  write_text(corpus.folder / "one" / "damaged.txt", std::string(200, 'a') + "\xFF" + std::string(200, 'b'));
  std::filesystem::copy_file(corpus.folder / "one" / "3.txt", corpus.folder / "one" / "3 again.txt");
  Messages messages;
  (void)corpus.data();
  ASSERT_EQ(messages.warnings().size(), 2u);
  EXPECT_EQ(messages.warnings()[0], "domain \"one\": 1 documents left out because they are no UTF-8 text (" +
                                        (corpus.folder / "one" / "latin1.txt").string() + " for example)");
  EXPECT_EQ(messages.warnings()[1], "domain \"one\": invalid UTF-8 replaced in 1 documents");
  ASSERT_EQ(messages.infos().size(), 1u);
  EXPECT_TRUE(messages.infos()[0].ends_with("1 exact duplicates left out")) << messages.infos()[0];
}

TEST(DataPositions, BadOnesAreRefused) {
  const Corpus corpus;
  Data data = corpus.data();
  const DataPosition good = data.position();
  const auto read = [](const char* json) { return expect_error([&] { (void)DataPosition::read(parse_json(json, "state.json")); }); };
  EXPECT_EQ(read("{}").code(), "data.position");
  EXPECT_EQ(read("{\"step\": -1, \"epoch\": [0], \"document\": [0], \"token\": [0], \"tokens\": [9]}").code(), "data.position");
  EXPECT_EQ(read("{\"step\": 1, \"epoch\": [0], \"document\": [0, 1], \"token\": [0], \"tokens\": [9]}").message(),
            "a data position of 1 epochs, 2 documents, 1 offsets and 1 sizes; all are one a domain");
  DataPosition other{.step = 3, .epoch = {0}, .document = {0}, .token = {0}, .tokens = {9}};
  EXPECT_EQ(expect_error([&] { data.seek(other); }).message(),
            "the saved position is of 1 domains, the recipe has 3; resume with the data it was saved with");
  for (const auto& [document, token] : std::vector<std::pair<int64_t, int64_t>>{{1000, 0}, {0, 100000}, {-1, 0}, {0, -1}}) {
    DataPosition outside = good;
    outside.document[1] = document;
    outside.token[1] = token;
    EXPECT_EQ(expect_error([&] { data.seek(outside); }).code(), "data.position") << document << " " << token;
  }
  DataPosition changed = good;
  changed.tokens[2] += 1;
  EXPECT_EQ(expect_error([&] { data.seek(changed); }).message(),
            fmt::format("domain \"three\" has {} training tokens, it had {} when the position was saved; bring its files back, or begin a new run",
                        good.tokens[2], good.tokens[2] + 1));
  EXPECT_EQ(data.position().step, 0);
}

TEST(DataCache, AnInterruptKeepsNothing) {
  const Corpus corpus;
  request_interrupt();
  const Error error = expect_error([&] { (void)corpus.data(); });
  clear_interrupt();
  EXPECT_EQ(error.code(), "data.interrupted");
  EXPECT_EQ(error.message(), "interrupted while tokenising domain \"one\"; nothing of it was kept");
  EXPECT_TRUE(std::filesystem::is_empty(corpus.folder / "cache"));
}

TEST(DocumentStream, TakesEquallyAndNeverWhatIsHeldOut) {
  const Corpus corpus;
  auto next = document_stream(corpus.options, 1500);
  int64_t bytes = 0;
  std::map<char, int64_t> of;  // by the first letter: o, t, and t of three
  std::vector<std::string> all;
  for (std::string text; next(text);) {
    EXPECT_FALSE(is_held_out(text, 0.2));
    bytes += static_cast<int64_t>(text.size());
    of[text.starts_with("one") ? '1' : text.starts_with("two") ? '2' : '3'] += static_cast<int64_t>(text.size());
    all.push_back(text);
  }
  EXPECT_GE(bytes, 1500);
  EXPECT_LT(bytes, 2000);
  for (const auto& [domain, share] : of) EXPECT_NEAR(static_cast<double>(share), 500, 300) << domain;
  auto again = document_stream(corpus.options, 1500);
  for (const std::string& text : all) {
    std::string same;
    ASSERT_TRUE(again(same));
    EXPECT_EQ(same, text);
  }
  // Everything that is not held out, when there is less than asked for.
  size_t count = 0;
  auto whole = document_stream(corpus.options, 1 << 30);
  for (std::string text; whole(text);) ++count;
  EXPECT_GT(count, all.size());
  EXPECT_LT(count, 74u);
}

// The quickstart's own data, as far as its packages are installed.
TEST(Data, TheQuickstartsDomainsAreText) {
  const std::filesystem::path recipe = std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "recipes" / "quickstart.yaml";
  const Node root = load_yaml(recipe.string());
  ASSERT_NE(root.find("data"), nullptr);
  auto options = read_options<DataOptions>(*root.find("data"));
  EXPECT_GE(options.domains.size(), 5u);
  TemporaryFolder folder;
  options.cache = folder.path().string();
  std::vector<DomainOptions> present;
  std::string absent;
  for (DomainOptions& domain : options.domains) {
    domain.limit_bytes = 60000;
    try {
      (void)find_sources(domain, false);
      present.push_back(domain);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), "data.missing");
      absent += " " + domain.package;
    }
  }
  if (present.size() < 5) GTEST_SKIP() << "needs the packages" << absent;
  options.domains = present;
  Data data(options, small_tokenizer(), 1);
  const std::map<std::string, std::string> common = {{"c-headers", "#define"}, {"python", "self"}, {"manual-pages", " the "},
                                                     {"scripture", " the "}, {"licences", "copyright"}, {"german", " und "},
                                                     {"french", " de "}, {"russian", " не "}};
  for (size_t d = 0; d < present.size(); ++d) {
    EXPECT_GT(data.training_tokens(static_cast<int64_t>(d)), 10000) << present[d].name;
    std::string text;
    DocumentReader reader(present[d], find_sources(present[d], false), options.document_bytes);
    for (std::string document; reader.next(document);) text += document;
    EXPECT_EQ(reader.counts().not_text, 0) << present[d].name;
    ASSERT_TRUE(common.contains(present[d].name)) << "name a word of " << present[d].name;
    EXPECT_NE(text.find(common.at(present[d].name)), std::string::npos) << present[d].name;
    // Markup of manual pages and of scripture is gone.
    const std::string markup = present[d].filter == "manual-page" ? "\\fB" : present[d].filter == "sword" ? "<w " : "\x01\x02";
    EXPECT_EQ(text.find(markup), std::string::npos) << present[d].name;
  }
}

}  // namespace
}  // namespace switchyard
