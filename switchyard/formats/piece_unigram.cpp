#include <algorithm>
#include <limits>

#include "switchyard/formats/piece_models.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

/// Tokens by their bytes, for walks along a text.
class Trie {
 public:
  void add(std::string_view token, int32_t id) {
    int32_t node = 0;
    for (const char c : token) {
      const int32_t next = child(node, static_cast<uint8_t>(c));
      if (next >= 0) {
        node = next;
        continue;
      }
      nodes_.push_back({});
      const auto made = static_cast<int32_t>(nodes_.size()) - 1;
      nodes_[static_cast<size_t>(node)].children.emplace_back(static_cast<uint8_t>(c), made);
      node = made;
    }
    nodes_[static_cast<size_t>(node)].id = id;
  }
  void sort() {
    for (Node& node : nodes_) std::sort(node.children.begin(), node.children.end());
  }
  int32_t child(int32_t node, uint8_t byte) const {
    for (const auto& [key, next] : nodes_[static_cast<size_t>(node)].children)
      if (key == byte) return next;
    return -1;
  }
  int32_t id(int32_t node) const { return nodes_[static_cast<size_t>(node)].id; }

 private:
  struct Node {
    int32_t id = -1;
    std::vector<std::pair<uint8_t, int32_t>> children;
  };
  std::vector<Node> nodes_{Node{}};
};

class UnigramModel : public PieceModel {
 public:
  UnigramModel(const PieceTable& table, const std::array<int64_t, 256>& byte_ids)
      : byte_ids_(byte_ids), scores_(table.scores) {
    double lowest = std::numeric_limits<double>::infinity();
    for (const double score : scores_) lowest = std::min(lowest, score);
    unknown_score_ = lowest - 10;  // the reference library's penalty
    for (size_t id = 0; id < table.tokens.size(); ++id) {
      const std::string& token = table.tokens[id];
      const auto i = static_cast<int64_t>(id);
      const bool special = i == table.unknown || i == table.begin || i == table.end || byte_of_token(token) >= 0;
      if (!special && !token.empty()) trie_.add(token, static_cast<int32_t>(id));
    }
    trie_.sort();
  }

  void encode(std::string_view text, std::vector<int64_t>& ids) const override {
    struct Best { double score = 0; int64_t from = -1; int32_t id = -1; };  // id -1: a character without a token
    std::vector<Best> best(text.size() + 1);
    for (size_t at = 0; at < text.size();) {
      const size_t character = utf8_step(text.substr(at)).bytes;
      const double here = best[at].score;
      const auto offer = [&](size_t end, double score, int32_t id) {
        Best& target = best[end];
        if (target.from < 0 || score > target.score) target = {score, static_cast<int64_t>(at), id};
      };
      bool single = false;
      int32_t node = 0;
      for (size_t end = at; end < text.size();) {
        node = trie_.child(node, static_cast<uint8_t>(text[end]));
        if (node < 0) break;
        ++end;
        const int32_t id = trie_.id(node);
        if (id < 0) continue;
        offer(end, scores_[static_cast<size_t>(id)] + here, id);
        single |= end - at == character;
      }
      if (!single) offer(at + character, unknown_score_ + here, -1);
      at += character;
    }
    const size_t first = ids.size();
    for (size_t end = text.size(); end > 0; end = static_cast<size_t>(best[end].from)) {
      if (best[end].id >= 0) {
        ids.push_back(best[end].id);
        continue;
      }
      for (size_t i = end; i > static_cast<size_t>(best[end].from); --i)
        ids.push_back(byte_ids_[static_cast<unsigned char>(text[i - 1])]);
    }
    std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
  }

 private:
  std::array<int64_t, 256> byte_ids_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  Trie trie_;
};

}  // namespace

std::unique_ptr<PieceModel> make_unigram_model(const PieceTable& table, const std::array<int64_t, 256>& byte_ids) {
  return std::make_unique<UnigramModel>(table, byte_ids);
}

}  // namespace switchyard
