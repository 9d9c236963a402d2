// Relative position bias (Raffel et al. 2020, section 2.1): a learned number a head is added to the score of a query and a key,
// chosen by how far the key stands from the query. Distances fall into buckets: half of them hold one distance each, the others
// ever more, evenly in the logarithm. One table serves all layers of a stack.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "switchyard/contract/context.h"
#include "switchyard/contract/parameters.h"

namespace switchyard {

/// [queries, keys] int64: the bucket of every key's place less the query's, queries counted from `first_query`, keys from 0.
/// Two-sided: later keys have the upper half of the buckets. One-sided: keys behind the query count as at it.
at::Tensor relative_buckets(int64_t first_query, int64_t queries, int64_t keys, bool two_sided, int64_t buckets, int64_t distance);

class RelativeBias {
 public:
  RelativeBias(int64_t buckets, int64_t distance, bool two_sided) : buckets_(buckets), distance_(distance), two_sided_(two_sided) {}

  /// Called by every attention that uses it; throws blocks.heads when they differ in heads.
  void join(int64_t heads, std::string_view who);
  int64_t heads() const { return heads_; }  ///< 0 = nobody joined
  /// weight [buckets, heads].
  void declare(const Schema& schema);
  const Parameter& weight() const { return weight_; }
  /// [H, queries, keys].
  at::Tensor scores(int64_t first_query, int64_t queries, int64_t keys, const Context& context) const;

 private:
  int64_t buckets_, distance_, heads_ = 0;
  bool two_sided_;
  Parameter weight_;
};

}  // namespace switchyard
