#include "switchyard/data/data.h"

#include <algorithm>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/data/cache.h"
#include "switchyard/data/packing.h"
#include "switchyard/data/sources.h"

namespace switchyard {

void DomainOptions::describe(Fields<DomainOptions>& f) {
  f.title("Domain", "One named source of documents.");
  f("name", &DomainOptions::name, "how reports call it").required();
  f("paths", &DomainOptions::paths, "files, folders and globs; .gz is unpacked").required();
  f("format", &DomainOptions::format, "text, or an object a line; automatic: by the file's name").choices({"automatic", "text", "jsonl"});
  f("field", &DomainOptions::field, "of a JSON line: the key of its text");
  f("filter", &DomainOptions::filter, "what makes documents of a file: copyright, gettext, manual-page, sword; empty = none");
  f("weight", &DomainOptions::weight, "share of the training tokens, relative to the other domains").range(0, 1e9);
  f("limit_bytes", &DomainOptions::limit_bytes, "text read of this domain; 0 = all").range(0).unit("bytes");
  f("package", &DomainOptions::package, "the system package that brings the files, named in errors");
}

void DataOptions::describe(Fields<DataOptions>& f) {
  f.title("Data", "What is trained on.");
  f("domains", &DataOptions::domains, "sources of documents");
  f("held_out", &DataOptions::held_out, "share of the documents kept for evaluation, chosen by the hash of their text").range(0, 0.9);
  f("document_bytes", &DataOptions::document_bytes, "longer documents are cut, at a blank line, a line or a word")
      .range(64, 1 << 26).unit("bytes");
  f("sequence", &DataOptions::sequence, "length of a training sequence").range(1, 1 << 24).unit("tokens");
  f("missing_ok", &DataOptions::missing_ok, "leave out files that are absent, with a warning");
  f("cache", &DataOptions::cache, "folder of the tokenised files; empty = .cache/data");
}

namespace {

struct PositionFields : DataPosition {
  static void describe(Fields<PositionFields>& f) {
    f("step", &PositionFields::step, "batches drawn").range(0).required();
    f("epoch", &PositionFields::epoch, "pass over each domain").range(0).required();
    f("document", &PositionFields::document, "index in the pass's order").range(0).required();
    f("token", &PositionFields::token, "offset in the document").range(0).required();
    f("tokens", &PositionFields::tokens, "training tokens of each domain").range(0).required();
  }
};

void check_domains(const DataOptions& options) {
  check(!options.domains.empty(), "data.domains", "the recipe lists no data; give data.domains at least one entry with name and paths");
  std::set<std::string> names;
  for (const DomainOptions& domain : options.domains) {
    check(!domain.name.empty(), "data.domains", "a domain needs a name");
    check(names.insert(domain.name).second, "data.domains", "two domains are named \"{}\"", domain.name);
  }
}

}  // namespace

Node DataPosition::write() const { return write_options(PositionFields{*this}); }

DataPosition DataPosition::read(const Node& node) {
  try {
    const auto position = read_options<PositionFields>(node);
    const size_t domains = position.epoch.size();
    check(position.document.size() == domains && position.token.size() == domains && position.tokens.size() == domains,
          "data.position", "a data position of {} epochs, {} documents, {} offsets and {} sizes; all are one a domain", domains,
          position.document.size(), position.token.size(), position.tokens.size());
    return position;
  } catch (const Error& error) {
    if (error.code() == "data.position") throw;
    fail("data.position", "the saved data position cannot be read: {}", error.message());
  }
}

struct Data::Impl {
  DataOptions options;
  std::shared_ptr<const Tokenizer> tokenizer;
  Streams random;
  std::vector<std::string> names;
  std::vector<TokenisedDomain> domains;
  std::vector<double> weights;  ///< zero for a domain without tokens
  DataPosition position;

  const TokenisedDomain& domain(int64_t d) const {
    check(d >= 0 && d < static_cast<int64_t>(domains.size()), "data.domain", "domain {} of {}", d, domains.size());
    return domains[static_cast<size_t>(d)];
  }

  /// The order of a domain's documents in a pass.
  Shuffle order(size_t domain, int64_t epoch) const {
    const uint64_t key = random.word({.purpose = "data.order", .step = epoch, .site = names[domain]});
    return Shuffle(key, domains[domain].training->documents());
  }

  void append_training_run(RunRows& rows, size_t domain) {
    Shuffle shuffle = order(domain, position.epoch[domain]);
    DocumentCursor cursor{position.document[domain], position.token[domain]};
    append_run(rows, *domains[domain].training, static_cast<int64_t>(domain), options.sequence,
               [&](int64_t i) { return shuffle(i); }, cursor,
               [&] {
                 shuffle = order(domain, ++position.epoch[domain]);
                 return true;
               });
    position.document[domain] = cursor.document;
    position.token[domain] = cursor.token;
  }
};

Data::Data(const DataOptions& options, std::shared_ptr<const Tokenizer> tokenizer, uint64_t seed)
    : impl_(new Impl{options, std::move(tokenizer), Streams(seed), {}, {}, {}, {}}) {
  check_domains(options);
  double total = 0;
  for (const DomainOptions& domain : options.domains) {
    impl_->names.push_back(domain.name);
    impl_->domains.push_back(open_domain(domain, options, *impl_->tokenizer));
    impl_->weights.push_back(impl_->domains.back().training ? domain.weight : 0);
    total += impl_->weights.back();
  }
  check(std::any_of(impl_->domains.begin(), impl_->domains.end(), [](const auto& d) { return d.training != nullptr; }),
        "data.missing", "none of the {} domains has files; the warnings above name their packages", options.domains.size());
  check(total > 0, "data.domains", "the weights of the domains that have text are all zero");
  DataPosition& position = impl_->position;
  position.epoch.resize(impl_->names.size());
  position.document.resize(impl_->names.size());
  position.token.resize(impl_->names.size());
  for (int64_t d = 0; d < static_cast<int64_t>(impl_->names.size()); ++d) position.tokens.push_back(training_tokens(d));
}

Data::~Data() = default;

const std::vector<std::string>& Data::domains() const { return impl_->names; }

int64_t Data::training_tokens(int64_t domain) const {
  const auto& file = impl_->domain(domain).training;
  return file ? file->tokens() : 0;
}

int64_t Data::held_out_tokens(int64_t domain) const {
  const auto& file = impl_->domain(domain).held_out;
  return file ? file->tokens() : 0;
}

const DataPosition& Data::position() const { return impl_->position; }

void Data::seek(const DataPosition& position) {
  const size_t domains = impl_->names.size();
  check(position.epoch.size() == domains && position.document.size() == domains && position.token.size() == domains &&
            position.tokens.size() == domains,
        "data.position", "the saved position is of {} domains, the recipe has {}; resume with the data it was saved with",
        position.epoch.size(), domains);
  for (size_t d = 0; d < domains; ++d) {
    const auto& file = impl_->domains[d].training;
    const int64_t documents = file ? file->documents() : 0, tokens = file ? file->tokens() : 0;
    check(position.tokens[d] == tokens, "data.position",
          "domain \"{}\" has {} training tokens, it had {} when the position was saved; bring its files back, or begin a new run",
          impl_->names[d], tokens, position.tokens[d]);
    bool inside = position.document[d] >= 0 && position.document[d] <= documents && position.token[d] >= 0;
    if (inside && position.token[d] > 0) {
      inside = position.document[d] < documents &&
               position.token[d] < file->length(impl_->order(d, position.epoch[d])(position.document[d]));
    }
    check(inside, "data.position", "domain \"{}\" has {} documents, the saved position is document {}, token {}", impl_->names[d],
          documents, position.document[d], position.token[d]);
  }
  impl_->position = position;
}

Batch Data::next(int64_t sequences) {
  check(sequences > 0, "data.sequences", "a batch of {} sequences", sequences);
  DataPosition& position = impl_->position;
  const RandomKey key{.purpose = "data.domain", .step = position.step};
  const double start = static_cast<double>(impl_->random.word(key) >> 11) * 0x1p-53;
  const std::vector<int64_t> drawn = draw_domains(impl_->weights, sequences, start);
  const at::Tensor order = impl_->random.permutation(sequences, {.purpose = "data.run", .step = position.step});
  RunRows rows;
  for (int64_t i = 0; i < sequences; ++i)
    impl_->append_training_run(rows, static_cast<size_t>(drawn[static_cast<size_t>(order.const_data_ptr<int64_t>()[i])]));
  ++position.step;
  return rows.batch();
}

std::vector<Batch> Data::held_out(int64_t domain, int64_t sequences, int64_t tokens) const {
  check(sequences > 0, "data.sequences", "a batch of {} sequences", sequences);
  std::vector<int64_t> wanted;
  for (int64_t d = 0; d < static_cast<int64_t>(impl_->domains.size()); ++d)
    if ((domain < 0 || d == domain) && impl_->domain(d).held_out) wanted.push_back(d);
  if (domain >= 0) (void)impl_->domain(domain);
  std::vector<DocumentCursor> cursors(wanted.size());
  std::vector<Batch> batches;
  RunRows rows;
  int64_t runs = 0;
  for (bool more = true; more && tokens > 0;) {
    more = false;
    for (size_t i = 0; i < wanted.size() && tokens > 0; ++i) {
      const int64_t before = rows.rows();
      append_run(rows, *impl_->domains[static_cast<size_t>(wanted[i])].held_out, wanted[i], std::min(impl_->options.sequence, tokens),
                 [](int64_t document) { return document; }, cursors[i], [] { return false; });
      const int64_t added = rows.rows() - before;
      if (added == 0) continue;
      more = true;
      tokens -= added;
      if (++runs < sequences) continue;
      batches.push_back(rows.batch());
      rows = {};
      runs = 0;
    }
  }
  if (rows.rows() > 0) batches.push_back(rows.batch());
  return batches;
}

std::function<bool(std::string&)> document_stream(const DataOptions& options, int64_t total_bytes) {
  check_domains(options);
  struct State {
    std::vector<std::unique_ptr<DocumentReader>> readers;
    std::vector<int64_t> bytes;
    double held_out;
    int64_t left;
  };
  auto state = std::make_shared<State>();
  state->held_out = options.held_out;
  state->left = total_bytes;
  for (const DomainOptions& domain : options.domains)
    state->readers.push_back(std::make_unique<DocumentReader>(domain, find_sources(domain, options.missing_ok), options.document_bytes));
  state->bytes.resize(state->readers.size());
  return [state](std::string& document) {
    while (state->left > 0) {
      size_t least = state->readers.size();
      for (size_t d = 0; d < state->readers.size(); ++d)
        if (state->readers[d] && (least == state->readers.size() || state->bytes[d] < state->bytes[least])) least = d;
      if (least == state->readers.size()) return false;
      if (!state->readers[least]->next(document)) {
        state->readers[least].reset();
        continue;
      }
      if (is_held_out(document, state->held_out)) continue;
      state->bytes[least] += static_cast<int64_t>(document.size());
      state->left -= static_cast<int64_t>(document.size());
      return true;
    }
    return false;
  };
}

}  // namespace switchyard
