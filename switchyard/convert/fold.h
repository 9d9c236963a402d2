// The same function said with fewer options, for families that have no word for them.
#pragma once

#include <memory>

#include "switchyard/models/decoder.h"

namespace switchyard {

/// A model without scales on routed outputs: where a combine policy multiplies what experts return that end in a linear map,
/// the factor goes into that map (exactly, when it is a power of two). Null when there is nothing to fold; scales that cannot
/// be folded stay. Shares every other tensor with `decoder`, which is bound.
std::shared_ptr<Decoder> fold_combine_scales(const Decoder& decoder);

}  // namespace switchyard
