#include "switchyard/kernels/codecs/block_codec.h"

#include <algorithm>
#include <vector>

#include "switchyard/kernels/codecs/table.h"

namespace switchyard {

std::span<const BlockCodec> block_codecs() {
  static const std::vector<BlockCodec> table = [] {
    std::vector<BlockCodec> all;
    for (const auto part : {codecs::plain_codecs(), codecs::simple_codecs(), codecs::k_codecs(), codecs::codebook_codecs(),
                            codecs::small_float_codecs()})
      all.insert(all.end(), part.begin(), part.end());
    std::sort(all.begin(), all.end(), [](const BlockCodec& a, const BlockCodec& b) { return a.number < b.number; });
    return all;
  }();
  return table;
}

const BlockCodec* block_codec_named(std::string_view name) {
  for (const BlockCodec& codec : block_codecs())
    if (codec.name == name) return &codec;
  return nullptr;
}

const BlockCodec* block_codec_numbered(uint32_t number) {
  for (const BlockCodec& codec : block_codecs())
    if (codec.number == number) return &codec;
  return nullptr;
}

}  // namespace switchyard
