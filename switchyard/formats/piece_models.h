// The searches of piece tokenizers (formats/piece_tokenizer.h).
#pragma once

#include <array>
#include <memory>

#include "switchyard/formats/piece_tokenizer.h"

namespace switchyard {

/// Merges the pair of lowest rank first, the leftmost among equals, until no pair is left.
std::unique_ptr<PieceModel> make_bpe_model(const PieceTable& table, const std::array<int64_t, 256>& byte_ids,
                                           const std::unordered_map<std::string, int64_t>& ids);

/// The segmentation of highest probability (Viterbi), the first found among equals.
std::unique_ptr<PieceModel> make_unigram_model(const PieceTable& table, const std::array<int64_t, 256>& byte_ids);

}  // namespace switchyard
