// A model's options written out in full: every default filled in, every rule about layers resolved layer by layer, what only
// training uses left out. Two models compute the same function of their weights when their compositions are equal.
#pragma once

#include <string>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/models/decoder.h"

namespace switchyard {

/// A map: vocabulary, width, context, norms and positions, and "layers", a list of {attention, feed_forward, mixtures, sites}.
/// Equal routings are written alike: a softmax over all logits divided by the kept ones' sum is a softmax over the kept ones.
Node composition(const Decoder& decoder);

/// Options with every default inside them filled in, so that what is saved does not change when a default does.
Node written_out(const ModelOptions& options);

struct Difference {
  std::string path;         ///< "layers.2.attention.qk_norm"
  std::string here, there;  ///< values as text; "(absent)"
};
/// Where two trees differ, in the order of the first.
std::vector<Difference> differences(const Node& here, const Node& there);

}  // namespace switchyard
