// Runs a model over a probe text and keeps what its routers decided.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "switchyard/data/data.h"
#include "switchyard/inspect/routing_trace.h"
#include "switchyard/models/decoder.h"

namespace switchyard {

/// Text to look at, as batches of whole sequences; each segment has the fact "domain".
struct ProbeText {
  std::vector<std::string> domains;
  std::vector<Batch> batches;
  int64_t tokens() const;
};

/// Held-out text of a run's data, the domains in turn, the same every time.
/// Throws inspect.data_empty when nothing was held out.
ProbeText held_out_probe(const Data& data, int64_t tokens, int64_t sequence);
/// Text of files, folders or globs; each path is a domain, named by its last part. Documents are cut to `sequence` tokens and
/// the domains take turns.
/// Throws data.missing, inspect.data_empty.
ProbeText file_probe(const std::vector<std::string>& paths, const Tokenizer& tokenizer, int64_t tokens, int64_t sequence);
/// The first batches with at least `tokens` tokens of every domain that has them; for comparing several checkpoints.
ProbeText shorter(const ProbeText& text, int64_t tokens);

/// Teacher-forced evaluation without gradients, with predictions and losses. `seed` fixes what random routers draw.
/// Throws model.token_id when the text was tokenised for another model.
RoutingTrace trace_routing(const Decoder& decoder, const ProbeText& text, uint64_t seed = 1,
                           const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace switchyard
