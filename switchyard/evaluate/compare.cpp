#include "switchyard/evaluate/compare.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

const at::Tensor* find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [known, tensor] : tensors)
    if (known == name) return &tensor;
  return nullptr;
}

/// Largest |difference|, infinite where one side is no finite number and the other is not the same.
double apart(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0;
  const double largest = (a - b).abs().masked_fill(a.eq(b), 0).max().item<double>();
  return std::isnan(largest) ? kInfinity : largest;
}

/// [rows, k] ids as sets: sorted, what was not chosen (-1) first.
at::Tensor as_sets(const at::Tensor& ids, int64_t width) {
  at::Tensor wide = ids.to(at::kLong);
  if (wide.size(1) < width) wide = at::cat({wide, at::full({wide.size(0), width - wide.size(1)}, -1, wide.options())}, 1);
  return std::get<0>(wide.sort(1));
}

/// Names that begin so, in the order of the numbers and words behind.
std::vector<std::string> layers_of(const NamedTensors& tensors, const std::string& prefix) {
  std::vector<std::string> layers;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with(prefix)) layers.push_back(name.substr(prefix.size()));
  // "encoder.2" before "encoder.10", and encoders before the decoders that read them.
  const auto key = [](const std::string& layer) {
    const size_t digits = layer.find_first_of("0123456789");
    const std::string word = layer.substr(0, digits);
    return std::tuple(word == "decoder." ? 1 : 0, word, digits == std::string::npos ? 0 : std::atoll(layer.c_str() + digits), layer);
  };
  std::sort(layers.begin(), layers.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  return layers;
}

template <typename Entry>
Entry& entry(std::vector<Entry>& list, std::map<std::string, size_t>& at, const std::string& layer) {
  const auto [found, fresh] = at.emplace(layer, list.size());
  if (fresh) list.push_back({.layer = layer});
  return list[found->second];
}

}  // namespace

std::optional<std::string> Comparison::first_different(double tolerance) const {
  for (const Hidden& layer : hidden)
    if (!(layer.largest <= tolerance * std::max(1.0, layer.scale))) return layer.layer;
  return {};
}

void Comparer::add_logits(const at::Tensor& reference, const at::Tensor& other, const at::Tensor& places, int64_t length) {
  const int64_t vocabulary = reference.size(1);
  constexpr int64_t kPiece = 256;  // rows whose logits are widened at once
  for (int64_t begin = 0; begin < reference.size(0); begin += kPiece) {
    const int64_t rows = std::min(kPiece, reference.size(0) - begin);
    const at::Tensor a = reference.narrow(0, begin, rows).to(at::kDouble), b = other.narrow(0, begin, rows).to(at::kDouble);
    const at::Tensor difference = (a - b).abs().masked_fill(a.eq(b), 0).contiguous();
    const double largest = apart(a, b);
    if (largest > sum_.largest) {
      const int64_t place = difference.nan_to_num(kInfinity, kInfinity).argmax().item<int64_t>();
      const int64_t at = places[begin + place / vocabulary].item<int64_t>(), token = place % vocabulary;
      sum_.at = {sequences_ + at / length, at % length, token, a[place / vocabulary][token].item<double>(), b[place / vocabulary][token].item<double>()};
      sum_.largest = largest;
    }
    sum_.mean += difference.sum().item<double>();
    const at::Tensor p = a.log_softmax(1), q = b.log_softmax(1);
    const at::Tensor divergence = (p.exp() * (p - q)).nan_to_num(0, kInfinity).sum(1);
    sum_.divergence += divergence.sum().item<double>();
    sum_.largest_divergence = std::max(sum_.largest_divergence, divergence.max().item<double>());
    sum_.same_top += a.argmax(1).eq(b.argmax(1)).sum().item<double>();
  }
  sum_.positions += reference.size(0);
  elements_ += static_cast<double>(reference.numel());
}

void Comparer::add(const NamedTensors& reference, const NamedTensors& other, const at::Tensor& mask) {
  const at::Tensor *a = find(reference, "logits"), *b = find(other, "logits");
  check(a != nullptr && b != nullptr, "evaluate.shape", "there are no logits to compare");
  check((a->dim() == 3 || a->dim() == 2) && a->sizes() == b->sizes(), "evaluate.shape", "logits are [{}] on one side and [{}] on the other",
        fmt::join(a->sizes(), ", "), fmt::join(b->sizes(), ", "));
  const bool classes = a->dim() == 2;  // a row for each sequence or image is its only place
  const int64_t batch = a->size(0), length = classes ? 1 : a->size(1), vocabulary = a->size(-1);
  const at::Tensor padding = classes ? at::Tensor() : mask;
  check(!padding.defined() || (padding.dim() == 2 && padding.size(0) == batch && padding.size(1) == length), "evaluate.shape",
        "the mask does not fit logits of [{}, {}, {}]", batch, length, vocabulary);
  const at::Tensor ones = padding.defined() ? padding.to(at::kBool) : at::ones({batch, length}, at::kBool);
  const at::Tensor places = ones.reshape({-1}).nonzero().squeeze(1);
  at::Tensor expected = *a;
  if (const at::Tensor* alone = find(reference, "logits_row1_unpadded"); alone && batch > 1) {
    const at::Tensor row = ones[1].nonzero().squeeze(1);
    check(alone->dim() == 2 && alone->size(0) == row.size(0) && alone->size(1) == vocabulary, "evaluate.shape",
          "logits_row1_unpadded is [{}], but row 1 has {} tokens and the vocabulary {}", fmt::join(alone->sizes(), ", "), row.size(0), vocabulary);
    expected = expected.clone();
    expected[1].index_copy_(0, row, alone->to(expected.scalar_type()));
  }
  add_logits(expected.reshape({batch * length, vocabulary}).index_select(0, places),
             b->reshape({batch * length, vocabulary}).index_select(0, places), places, length);
  sequences_ += batch;

  for (const std::string& layer : layers_of(reference, "hidden_states.")) {
    const at::Tensor& x = *find(reference, "hidden_states." + layer);
    const at::Tensor* y = find(other, "hidden_states." + layer);
    if (y == nullptr || y->dim() != 3 || y->size(0) == 0) continue;
    const bool first_alone = x.dim() == 2;
    const at::Tensor there = first_alone ? (*y)[0] : *y;
    if (x.sizes() != there.sizes()) continue;
    at::Tensor p = x.reshape({-1, x.size(-1)}).to(at::kDouble), q = there.reshape({-1, x.size(-1)}).to(at::kDouble);
    const at::Tensor seen = first_alone ? ones[0] : ones.reshape({-1});
    if (seen.size(0) == p.size(0)) {  // an encoder's rows are not those of the mask
      const at::Tensor rows = seen.nonzero().squeeze(1);
      p = p.index_select(0, rows);
      q = q.index_select(0, rows);
    }
    Comparison::Hidden& hidden = entry(sum_.hidden, hidden_at_, layer);
    hidden.largest = std::max(hidden.largest, apart(p, q));
    if (p.numel() > 0) hidden.scale = std::max(hidden.scale, p.abs().max().item<double>());
  }
  for (const std::string& layer : layers_of(reference, "topk_ids.")) {
    const at::Tensor& x = *find(reference, "topk_ids." + layer);
    const at::Tensor* y = find(other, "topk_ids." + layer);
    if (y == nullptr || x.dim() != 2 || y->dim() != 2 || x.size(0) != y->size(0)) continue;
    const int64_t width = std::max(x.size(1), y->size(1));
    at::Tensor p = as_sets(x, width), q = as_sets(*y, width);
    if (p.size(0) == batch * length) {
      p = p.index_select(0, places);
      q = q.index_select(0, places);
    }
    Comparison::Routing& routing = entry(sum_.routing, routing_at_, layer);
    routing.rows += p.size(0);
    routing.same += p.eq(q).all(1).sum().item<int64_t>();
  }
}

Comparison Comparer::result() const {
  Comparison result = sum_;
  if (result.positions == 0) return result;
  const auto positions = static_cast<double>(result.positions);
  result.mean /= elements_;
  result.divergence = std::max(0.0, result.divergence / positions);  // rounding can leave it a little below
  result.same_top /= positions;
  return result;
}

}  // namespace switchyard
