#include "switchyard/formats/tokenizers/trie.h"

namespace switchyard {

int32_t Trie::make_node() {
  nodes_.push_back({});
  return static_cast<int32_t>(nodes_.size()) - 1;
}

void Trie::insert(uint64_t key, int32_t child) {
  if (2 * (edge_count_ + 1) > edges_.size()) {
    std::vector<Edge> old(edges_.size() * 2 < 64 ? 64 : edges_.size() * 2);
    old.swap(edges_);
    mask_ = edges_.size() - 1;
    for (const Edge& edge : old) {
      if (edge.child < 0) continue;
      uint64_t i = mixed(edge.key) & mask_;
      while (edges_[i].child >= 0) i = (i + 1) & mask_;
      edges_[i] = edge;
    }
  }
  uint64_t i = mixed(key) & mask_;
  while (edges_[i].child >= 0) i = (i + 1) & mask_;
  edges_[i] = {key, child};
  ++edge_count_;
}

void Trie::add(std::string_view key, int32_t value) {
  if (key.empty()) return;
  int32_t& first = first_[static_cast<unsigned char>(key[0])];
  if (first < 0) first = make_node();
  int32_t node = first;
  for (const char c : key.substr(1)) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t child = next(node, byte);
    if (child < 0) {
      child = make_node();
      insert(static_cast<uint64_t>(node) << 8 | byte, child);
      nodes_[static_cast<size_t>(node)].inner = true;
    }
    node = child;
  }
  nodes_[static_cast<size_t>(node)].value = value;
}

}  // namespace switchyard
