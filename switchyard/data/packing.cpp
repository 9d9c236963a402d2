#include "switchyard/data/packing.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

namespace switchyard {
namespace {

/// The finaliser of splitmix64 (Steele et al. 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

at::Tensor to_tensor(const std::vector<int64_t>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

}  // namespace

Shuffle::Shuffle(uint64_t key, int64_t n) : key_(key), n_(n) {
  while (n > int64_t{1} << (2 * half_bits_)) ++half_bits_;
}

int64_t Shuffle::operator()(int64_t i) const {
  if (n_ < 2) return i;
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<uint64_t>(i);
  do {
    uint64_t left = x >> half_bits_, right = x & mask;
    for (uint64_t round = 0; round < 8; ++round) {
      const uint64_t next = left ^ (mix(key_ + mix(right + (round << 32) + 1)) & mask);
      left = right;
      right = next;
    }
    x = left << half_bits_ | right;
  } while (x >= static_cast<uint64_t>(n_));
  return static_cast<int64_t>(x);
}

Batch RunRows::batch() const {
  Segments segments;
  segments.begin = begin;
  Batch batch{to_tensor(ids), to_tensor(targets), Facts(std::move(segments)), rows()};
  batch.facts.set_segment("domain", to_tensor(domain));
  return batch;
}

void append_run(RunRows& rows, const TokenFile& file, int64_t domain, int64_t length,
                const std::function<int64_t(int64_t)>& order, DocumentCursor& cursor, const std::function<bool()>& again) {
  std::vector<int64_t> piece;
  while (length > 0) {
    if (cursor.document == file.documents()) {
      if (!again()) return;
      cursor = {};
    }
    const int64_t document = order(cursor.document);
    const int64_t left = file.length(document) - 1 - cursor.token;  // the last token is only a target
    const int64_t count = std::min(left, length);
    if (count > 0) {
      piece.resize(static_cast<size_t>(count + 1));
      file.read(document, cursor.token, count + 1, piece.data());
      rows.ids.insert(rows.ids.end(), piece.begin(), piece.end() - 1);
      rows.targets.insert(rows.targets.end(), piece.begin() + 1, piece.end());
      rows.begin.push_back(rows.rows());
      rows.domain.push_back(domain);
    }
    length -= count;
    cursor.token += count;
    if (count == left) cursor = {cursor.document + 1, 0};
  }
}

std::vector<int64_t> draw_domains(const std::vector<double>& weights, int64_t runs, double start) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> domains;
  double reached = 0;
  size_t domain = 0;
  for (int64_t i = 0; i < runs; ++i) {
    const double point = (start + static_cast<double>(i)) / static_cast<double>(runs) * total;
    while (domain + 1 < weights.size() && point >= reached + weights[domain]) reached += weights[domain++];
    domains.push_back(static_cast<int64_t>(domain));
  }
  // Rounding at the very end must not land on a domain without weight.
  for (int64_t& d : domains)
    while (weights[static_cast<size_t>(d)] == 0 && d > 0) --d;
  return domains;
}

}  // namespace switchyard
