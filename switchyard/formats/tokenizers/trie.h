// Byte strings by their beginnings: walks along a text, one look-up a byte.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace switchyard {

class Trie {
 public:
  void add(std::string_view key, int32_t value);  ///< the last value of a key counts

  /// Calls each(length, value) for every key that `text` begins with, shortest first, until it returns false.
  template <typename F>
  void walk(std::string_view text, F&& each) const {
    if (text.empty()) return;
    int32_t node = first_[static_cast<unsigned char>(text[0])];
    for (size_t i = 1; node >= 0; ++i) {
      const Node& at = nodes_[static_cast<size_t>(node)];
      if (at.value >= 0 && !each(i, at.value)) return;
      if (i == text.size() || !at.inner) return;
      node = next(node, static_cast<uint8_t>(text[i]));
    }
  }
  bool may_begin(char byte) const { return first_[static_cast<unsigned char>(byte)] >= 0; }
  bool empty() const { return nodes_.empty(); }

 private:
  struct Node {
    int32_t value = -1;
    bool inner = false;
  };
  struct Edge {
    uint64_t key = ~uint64_t{0};  ///< node * 256 + byte
    int32_t child = -1;
  };
  static uint64_t mixed(uint64_t key) { return (key * 0x9E3779B97F4A7C15ULL) >> 20; }
  int32_t next(int32_t node, uint8_t byte) const {
    const uint64_t key = static_cast<uint64_t>(node) << 8 | byte;
    for (uint64_t i = mixed(key) & mask_;; i = (i + 1) & mask_) {
      if (edges_[i].key == key) return edges_[i].child;
      if (edges_[i].child < 0) return -1;
    }
  }
  int32_t make_node();
  void insert(uint64_t key, int32_t child);

  std::vector<Node> nodes_;
  std::vector<int32_t> first_ = std::vector<int32_t>(256, -1);  ///< nodes of single bytes
  std::vector<Edge> edges_ = std::vector<Edge>(1);  ///< open addressing
  uint64_t mask_ = 0;
  size_t edge_count_ = 0;
};

}  // namespace switchyard
