#include "switchyard/blocks/recurrent.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "switchyard/experts/feed_forward/feed_forward.h"

namespace switchyard {

PaddedSequences::PaddedSequences(const Segments& segments) : segments_(segments), count_(segments.count()) {
  std::vector<int64_t> lengths, place;
  for (int64_t s = 0; s < count_; ++s) lengths.push_back(segments.length(s));
  for (int64_t n : lengths) length_ = std::max(length_, n);
  for (int64_t s = 0; s < count_; ++s) {
    full_ = full_ && lengths[static_cast<size_t>(s)] == length_;
    for (int64_t i = 0; i < lengths[static_cast<size_t>(s)]; ++i) place.push_back(s * length_ + i);
  }
  place_ = at::tensor(place, at::kLong);
  lengths_ = at::tensor(lengths, at::kLong);
}

at::Tensor PaddedSequences::spread(const at::Tensor& rows) const {
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = length_;
  shape.insert(shape.begin(), count_);
  if (full_) return rows.reshape(shape);
  std::vector<int64_t> flat = rows.sizes().vec();
  flat[0] = count_ * length_;
  return at::zeros(flat, rows.options()).index_copy(0, place_.to(rows.device()), rows).view(shape);
}

at::Tensor PaddedSequences::gather(const at::Tensor& padded) const {
  const at::Tensor rows = padded.flatten(0, 1);
  return full_ ? rows : rows.index_select(0, place_.to(rows.device()));
}

at::Tensor PaddedSequences::held(const Context& context, const std::string& name, const std::vector<int64_t>& shape,
                                 const at::Tensor& like) const {
  std::vector<at::Tensor> each;
  const at::Tensor nothing = at::zeros(shape, like.options());
  for (int64_t s = 0; s < count_; ++s) {
    const at::Tensor left = context.state ? context.state->get(name, segments_.sequence_of(s)) : at::Tensor();
    each.push_back(left.defined() ? left.to(like.scalar_type()) : nothing);
  }
  return count_ == 1 ? each[0].unsqueeze(0) : at::stack(each, 0);
}

void PaddedSequences::keep(const Context& context, const std::string& name, const at::Tensor& values) const {
  if (context.state == nullptr) return;
  for (int64_t s = 0; s < count_; ++s)
    if (segments_.length(s) > 0) context.state->put(name, segments_.sequence_of(s), count_ == 1 ? values.select(0, 0) : values.select(0, s).clone());
}

at::Tensor causal_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const PaddedSequences& sequences,
                              const Context& context, const std::string& name) {
  const int64_t width = weight.size(1), channels = weight.size(0);
  const at::Tensor rows = at::cat({sequences.held(context, name, {width - 1, channels}, x), x}, 1);  // [S, K - 1 + L, C]
  at::Tensor y;
  for (int64_t k = 0; k < width; ++k) {
    const at::Tensor part = rows.narrow(1, k, x.size(1)), share = weight.select(1, k);
    y = y.defined() ? at::addcmul(y, part, share) : part * share;
  }
  if (context.state != nullptr && width > 1) {
    // Of a sequence of n rows the last ones begin at row n of what has K - 1 rows before it.
    const at::Tensor at = sequences.lengths().unsqueeze(1) + at::arange(width - 1, at::kLong);
    const at::Tensor index = at.to(x.device()).unsqueeze(2).expand({-1, -1, channels});
    sequences.keep(context, name, rows.gather(1, index));
  }
  return bias.defined() ? y + bias : y;
}

at::Tensor curve(const at::Tensor& x, const std::string& name) {
  return name == "silu" ? at::silu(x) : kernels::activate(x, {}, {.kind = activation_named(name)});
}

StateSpec convolution_state(const std::string& name, int64_t channels, int64_t width) {
  return {.name = name, .kind = StateSpec::Kind::per_sequence, .shape = {width - 1, channels}};
}

}  // namespace switchyard
