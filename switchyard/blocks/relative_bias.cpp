#include "switchyard/blocks/relative_bias.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/contract/adaptation.h"

namespace switchyard {

at::Tensor relative_buckets(int64_t first_query, int64_t queries, int64_t keys, bool two_sided, int64_t buckets, int64_t distance) {
  const at::Tensor key = at::arange(keys, at::kLong), query = at::arange(first_query, first_query + queries, at::kLong);
  const at::Tensor relative = key.unsqueeze(0) - query.unsqueeze(1);
  const int64_t side = two_sided ? buckets / 2 : buckets, exact = side / 2;
  const at::Tensor far = two_sided ? relative.abs() : (-relative).clamp_min(0);
  // In float32, as in the published code: where a logarithm falls on a whole bucket, its last bit decides. Where the buckets of one
  // distance each reach as far as the distance, what is farther has the last one.
  const auto logarithmic = [&] {
    const at::Tensor steps = at::log(far.clamp_min(1).to(at::kFloat) / static_cast<double>(exact)) /
                             std::log(static_cast<double>(distance) / static_cast<double>(exact)) * static_cast<double>(side - exact);
    return (steps.to(at::kLong) + exact).clamp_max(side - 1);
  };
  const at::Tensor large = exact > 0 && distance > exact ? logarithmic() : at::full_like(far, side - 1);
  const at::Tensor bucket = at::where(far < exact, far, large);
  return two_sided ? bucket + (relative > 0).to(at::kLong) * side : bucket;
}

void RelativeBias::join(int64_t heads, std::string_view who) {
  check(heads_ == 0 || heads_ == heads, "blocks.heads",
        "{}: {} heads, but the relative position bias that all layers share has {}", who, heads, heads_);
  heads_ = heads;
}

void RelativeBias::declare(const Schema& schema) {
  check(buckets_ >= (two_sided_ ? 2 : 1), "blocks.relative", "{} buckets of distances: keys before and behind the query have half of them each; take 2 or more", buckets_);
  weight_ = schema.add("weight", {buckets_, heads_}, Role::embedding, Init::normal(0.02));
}

at::Tensor RelativeBias::scores(int64_t first_query, int64_t queries, int64_t keys, const Context& context) const {
  const at::Tensor bucket = relative_buckets(first_query, queries, keys, two_sided_, buckets_, distance_);
  const at::Tensor rows = embedding(bucket.view({-1}).to(context[weight_].device()), weight_, context);
  return rows.view({queries, keys, heads_}).permute({2, 0, 1});
}

}  // namespace switchyard
