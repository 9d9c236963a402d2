#include "switchyard/kernels/cuda/routing.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int64_t kMostPairs = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostSlots = int64_t{1} << 24;

bool can_sort(const at::Tensor& slot, int64_t slots) {
  return takes(slot, {at::kLong}) && slot.size(0) < kMostPairs && slots <= kMostSlots;
}

struct Sorted {
  at::Tensor order, offset, report;
};
/// order keeps room for every pair; nothing waits for the device.
Sorted sort_pairs(const at::Tensor& slot, int64_t slots, const at::Tensor& kept, bool skip_negative) {
  const at::Tensor of = slot.contiguous(), in = kept.defined() ? kept.contiguous() : kept;
  const int64_t pairs = of.size(0), chunks = sort_chunks(pairs, slots);
  Sorted s{.order = at::empty({pairs}, of.options()), .offset = at::empty({slots + 1}, of.options()),
           .report = at::full({2}, pairs, of.options())};
  const at::Tensor counts = at::zeros({chunks, slots}, of.options().dtype(at::kInt));
  const Call call(of);
  call->sort({.slot = values<int64_t>(of), .kept = values<bool>(in), .pairs = pairs, .slots = slots, .skip_negative = skip_negative,
              .chunks = chunks, .counts = data<int32_t>(counts), .order = data<int64_t>(s.order), .offset = data<int64_t>(s.offset),
              .report = data<int64_t>(s.report)},
             call.stream());
  return s;
}

}  // namespace

std::optional<BestColumns> top_k(const at::Tensor& scores, int64_t k, GroupLimit limit) {
  const int64_t rows = scores.size(0), columns = scores.size(1);
  // Each of k rounds reads the row again.
  if (!takes(scores, {at::kFloat}) || k * columns > (int64_t{1} << 18) || limit.groups > kMostGroups) return std::nullopt;
  const at::Tensor plain = scores.detach().contiguous();
  const auto places = plain.options().dtype(at::kLong);
  BestColumns best{.ids = at::empty({rows, k}, places)};
  const at::Tensor first_nan = at::full({1}, rows * columns, places);
  const Call call(plain);
  call->top_k({.scores = values<float>(plain), .rows = rows, .columns = columns, .k = k, .groups = limit.groups, .chosen = limit.chosen,
               .best = limit.best, .ids = data<int64_t>(best.ids), .first_nan = data<int64_t>(first_nan)},
              call.stream());
  const int64_t found = first_nan.item<int64_t>();
  if (found < rows * columns) best.first_nan = found;
  return best;
}

std::optional<SortedPairs> sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept) {
  if (!can_sort(slot, slots)) return std::nullopt;
  const Sorted s = sort_pairs(slot, slots, kept, /*skip_negative=*/false);
  const at::Tensor report = s.report.cpu();
  const int64_t first_bad = report.const_data_ptr<int64_t>()[0], count = report.const_data_ptr<int64_t>()[1];
  return SortedPairs{{s.order.narrow(0, 0, count), s.offset}, first_bad < slot.size(0) ? first_bad : -1};
}

SlotOrder positions_by_row(const at::Tensor& row, int64_t rows) {
  if (!can_sort(row, rows)) return reference::sort_by_slot(row, rows, {});
  Sorted s = sort_pairs(row, rows, {}, /*skip_negative=*/false);
  return {std::move(s.order), std::move(s.offset)};
}

std::optional<at::Tensor> inverse_order(const at::Tensor& order, int64_t pairs) {
  if (!takes(order, {at::kLong})) return std::nullopt;
  const at::Tensor of = order.contiguous(), position = at::full({pairs}, -1, of.options());
  const Call call(of);
  call->invert({.order = values<int64_t>(of), .count = of.size(0), .position = data<int64_t>(position)}, call.stream());
  return position;
}

std::optional<at::Tensor> admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt, const at::Tensor& capacity,
                                int64_t bins) {
  if (!can_sort(bin, bins) || (priority.defined() && priority.scalar_type() != at::kFloat)) return std::nullopt;
  const at::Tensor asks = exempt.defined() ? exempt.logical_not() : exempt;
  const Sorted s = sort_pairs(bin, bins, asks, /*skip_negative=*/true);
  const at::Tensor kept = exempt.defined() ? exempt.logical_and(bin.ge(0)) : at::zeros({bin.size(0)}, bin.options().dtype(at::kBool));
  const at::Tensor places = capacity.to(bin.device(), at::kLong).contiguous(), by = priority.defined() ? priority.detach().contiguous() : priority;
  const Call call(bin);
  call->admit({.order = values<int64_t>(s.order), .offset = values<int64_t>(s.offset), .bins = bins, .capacity = values<int64_t>(places),
               .priority = values<float>(by), .kept = data<bool>(kept)},
              call.stream());
  return kept;
}

}  // namespace switchyard::kernels::cuda
