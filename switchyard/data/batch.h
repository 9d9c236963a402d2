// What one forward pass is fed: packed rows with their targets and facts.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "switchyard/contract/facts.h"

namespace switchyard {

/// Documents lie one after another; a segment is one document or a piece of one, so that neither attention nor
/// loss crosses documents. Each ends with the end token, as a target. A document that a run's end cuts goes on in the
/// domain's next run as a new segment, so that every token but a document's first is predicted exactly once a pass.
/// Facts: "domain" [segments] int64 (index in the recipe's list).
struct Batch {
  at::Tensor ids;      ///< [rows] int64
  at::Tensor targets;  ///< [rows] int64: the next token, or -1 where there is none
  Facts facts;
  int64_t predicted = 0;  ///< rows with a target
  at::Tensor source = {};  ///< [source rows] int64: what an encoder reads for each segment; undefined = the model has none
  Segments source_segments = {};
};

class Decoder;
struct Context;
/// The model's rows after the final norm for a batch, [rows, D]: with an encoder, of what it makes of the source (of the batch's own
/// rows where it has none). `context` has the batch's facts; hidden: see Decoder::forward.
at::Tensor hidden_rows(const Decoder& model, const Batch& batch, const Context& context, std::vector<at::Tensor>* hidden = nullptr);

}  // namespace switchyard
