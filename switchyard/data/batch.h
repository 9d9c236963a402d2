// What one forward pass is fed: packed rows with their targets and facts.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/contract/facts.h"

namespace switchyard {

/// Documents lie one after another; a segment is one document or a piece of one, so that neither attention nor
/// loss crosses documents. Facts: "domain" [segments] int64 (index in the recipe's list).
struct Batch {
  at::Tensor ids;      ///< [rows] int64
  at::Tensor targets;  ///< [rows] int64: the next token, or -1 where there is none
  Facts facts;
  int64_t predicted = 0;  ///< rows with a target
};

}  // namespace switchyard
