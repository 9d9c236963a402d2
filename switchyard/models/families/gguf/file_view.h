// A folder of a published family seen as the GGUF file that it becomes: config.json as metadata, tensors under the container's names
// and in its shapes. The other way is hub_view.h; a view of a view is the folder again, bit for bit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/weight_source.h"

namespace switchyard {

struct GgufView {
  GgufMetadata metadata;                        ///< without vocabulary (formats/tokenizers/gguf_vocabulary.h)
  std::shared_ptr<const WeightSource> weights;  ///< made when asked for; a dtype that names blocks is to be packed so, which loses nothing
  std::vector<std::string> notices;             ///< what other readers of the container pass over
};

/// config: of a family with an architecture here (architecture.h); weights: its folder's. One-dimensional tensors, biases and routers are
/// float32 there, as llama.cpp needs them; the metadata says what they were. Throws convert.gguf.family for another family,
/// convert.gguf.option when the container's keys cannot say the config (what would read otherwise is named), convert.gguf.tensor
/// for a tensor without a name there, model.missing_tensor, model.config, options.*.
GgufView gguf_view(const Node& config, std::shared_ptr<const WeightSource> weights);

}  // namespace switchyard
