// The cache of tokenised domains: finds the token files that fit a domain, its files and the tokenizer, or makes them.
#pragma once

#include <memory>
#include <string>

#include "switchyard/data/data.h"
#include "switchyard/data/token_files.h"

namespace switchyard {

/// A domain's tokens, open.
struct TokenisedDomain {
  std::unique_ptr<TokenFile> training, held_out;  ///< null when the domain's files are absent and that is allowed
};

/// Throws what reading throws, data.empty, data.encoding, data.cache (cannot be written).
TokenisedDomain open_domain(const DomainOptions& domain, const DataOptions& options, const Tokenizer& tokenizer);

/// Whether a document is kept for evaluation: by the hash of its text, so that equal texts are on one side.
bool is_held_out(std::string_view document, double share);

}  // namespace switchyard
