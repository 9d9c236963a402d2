#include "switchyard/inspect/probe.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/data/packing.h"
#include "switchyard/data/sources.h"

namespace switchyard {
namespace {

/// Rows of one forward pass: enough for the matrix products, little enough for logits over a large vocabulary.
constexpr int64_t kRowsAPass = 2048;

int64_t sequences_a_pass(int64_t sequence) { return std::max<int64_t>(1, kRowsAPass / std::max<int64_t>(1, sequence)); }

std::vector<int64_t> domains_of(const Batch& batch) {
  const at::Tensor domain = batch.facts.segment("domain", "the routing report").to(at::kCPU, at::kLong).contiguous();
  return {domain.const_data_ptr<int64_t>(), domain.const_data_ptr<int64_t>() + domain.numel()};
}

/// A name for a path that tells it from the others.
std::string domain_name(const std::string& path, std::set<std::string>& taken) {
  std::filesystem::path p(path);
  if (p.filename().empty()) p = p.parent_path();
  const std::string stem = p.stem().string().empty() ? path : p.stem().string();
  std::string name = stem;
  for (int64_t i = 2; !taken.insert(name).second; ++i) name = fmt::format("{} {}", stem, i);
  return name;
}

/// A stretch of one document with its next tokens.
struct Piece { std::vector<int64_t> ids, targets; };

std::vector<Piece> cut(const std::vector<int64_t>& ids, size_t length) {
  std::vector<Piece> pieces;
  for (size_t begin = 0; begin < ids.size(); begin += length) {
    Piece& piece = pieces.emplace_back();
    for (size_t i = begin; i < std::min(ids.size(), begin + length); ++i) {
      piece.ids.push_back(ids[i]);
      piece.targets.push_back(i + 1 < ids.size() ? ids[i + 1] : -1);
    }
  }
  return pieces;
}

}  // namespace

int64_t ProbeText::tokens() const {
  int64_t total = 0;
  for (const Batch& batch : batches) total += batch.ids.size(0);
  return total;
}

ProbeText held_out_probe(const Data& data, int64_t tokens, int64_t sequence) {
  // Domains in turn within a batch, as in training: where places are limited, a batch of one domain would crowd its experts.
  ProbeText text{data.domains(), data.held_out(-1, sequences_a_pass(sequence), tokens)};
  check(text.tokens() > 0, "inspect.data_empty",
        "the run held out no text (data.held_out); name files to look at with --data");
  return text;
}

ProbeText file_probe(const std::vector<std::string>& paths, const Tokenizer& tokenizer, int64_t tokens, int64_t sequence) {
  ProbeText text;
  std::set<std::string> taken;
  std::vector<std::vector<Piece>> pieces(paths.size());
  size_t longest = 0;
  for (size_t d = 0; d < paths.size(); ++d) {
    DomainOptions domain;
    domain.name = domain_name(paths[d], taken);
    domain.paths = {paths[d]};
    text.domains.push_back(domain.name);
    DocumentReader reader(domain, find_sources(domain, /*missing_ok=*/false), int64_t{1} << 20);
    int64_t left = std::max<int64_t>(1, tokens / static_cast<int64_t>(paths.size()));
    std::string document;
    while (left > 0 && reader.next(document)) {
      std::vector<int64_t> ids = tokenizer.encode(document);
      if (static_cast<int64_t>(ids.size()) > left) ids.resize(static_cast<size_t>(left));
      left -= static_cast<int64_t>(ids.size());
      const std::vector<Piece> parts = cut(ids, static_cast<size_t>(sequence));
      pieces[d].insert(pieces[d].end(), parts.begin(), parts.end());
    }
    longest = std::max(longest, pieces[d].size());
  }
  RunRows rows;
  for (size_t i = 0; i < longest; ++i)
    for (size_t d = 0; d < paths.size(); ++d) {
      if (i >= pieces[d].size()) continue;
      const Piece& piece = pieces[d][i];
      rows.ids.insert(rows.ids.end(), piece.ids.begin(), piece.ids.end());
      rows.targets.insert(rows.targets.end(), piece.targets.begin(), piece.targets.end());
      rows.begin.push_back(rows.rows());
      rows.domain.push_back(static_cast<int64_t>(d));
      if (rows.rows() < kRowsAPass) continue;
      text.batches.push_back(rows.batch());
      rows = {};
    }
  if (rows.rows() > 0) text.batches.push_back(rows.batch());
  check(text.tokens() > 0, "inspect.data_empty", "the {} paths of --data hold no text", paths.size());
  return text;
}

ProbeText shorter(const ProbeText& text, int64_t tokens) {
  ProbeText result{text.domains, {}};
  std::vector<int64_t> had(text.domains.size());
  for (const Batch& batch : text.batches) {
    const std::vector<int64_t> domain = domains_of(batch);
    const bool wanted = std::any_of(domain.begin(), domain.end(), [&](int64_t d) { return had[static_cast<size_t>(d)] < tokens; });
    if (!wanted) continue;
    for (size_t s = 0; s < domain.size(); ++s) had[static_cast<size_t>(domain[s])] += batch.facts.segments.length(static_cast<int64_t>(s));
    result.batches.push_back(batch);
  }
  return result;
}

RoutingTrace trace_routing(const Decoder& decoder, const ProbeText& text, uint64_t seed,
                           const std::function<void(int64_t, int64_t)>& progress) {
  at::NoGradGuard guard;
  const Streams random(seed);
  TraceCollector collector(text.domains);
  const int64_t total = text.tokens();
  int64_t done = 0, step = 0;
  for (const Batch& batch : text.batches) {
    Records records;
    RoutedStore routed;
    const Context context{.facts = batch.facts, .random = random, .phase = Phase::evaluate, .step = step++,
                          .records = &records, .routed = &routed};
    const at::Tensor hidden = hidden_rows(decoder, batch, context);
    collector.add({.ids = batch.ids, .targets = batch.targets, .segments = batch.facts.segments, .domain = domains_of(batch),
                   .logits = decoder.logits(hidden, context)}, records);
    done += batch.ids.size(0);
    if (progress) progress(done, total);
  }
  return collector.take();
}

}  // namespace switchyard
