#include "switchyard/models/adapters/delta.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <utility>

namespace switchyard {
namespace {

enum class Axis { expert, row, column };

/// Follows the axes of W through a view, cutting the factors as it goes.
struct Walk {
  std::vector<Axis> axes;
  Factors factors;

  void slice_rows(const ViewStep& step) {
    const auto cut = [&](at::Tensor& tensor, int64_t dim) {
      if (tensor.defined()) tensor = tensor.slice(dim, step.index, step.index + (step.length - 1) * step.step + 1, step.step);
    };
    cut(factors.b, factors.b.defined() ? factors.b.dim() - 2 : 0);
    cut(factors.b_bias, 0);
    cut(factors.magnitude, 0);
    cut(factors.out_scale, 0);
  }
  void slice_columns(const ViewStep& step) {
    const auto cut = [&](at::Tensor& tensor, int64_t dim) {
      if (tensor.defined()) tensor = tensor.slice(dim, step.index, step.index + (step.length - 1) * step.step + 1, step.step);
    };
    cut(factors.a, factors.a.defined() ? factors.a.dim() - 1 : 0);
    cut(factors.in_scale, 0);
  }

  bool follow(const ViewStep& step, bool whole_rows) {
    const auto dim = static_cast<size_t>(step.dim);
    if (dim >= axes.size()) return false;
    switch (step.kind) {
      case ViewStep::Kind::transpose:
        std::swap(axes[dim], axes[static_cast<size_t>(step.index)]);
        return true;
      case ViewStep::Kind::select:
        if (axes[dim] != Axis::expert) return false;
        factors.a = factors.a.select(0, step.index);
        factors.b = factors.b.select(0, step.index);
        axes.erase(axes.begin() + step.dim);
        return true;
      case ViewStep::Kind::slice: break;
      default: return false;
    }
    if (step.length <= 0) return false;
    switch (axes[dim]) {
      case Axis::row: slice_rows(step); return true;
      case Axis::column:
        if (whole_rows) return false;  // a norm over the row needs all of it
        slice_columns(step);
        return true;
      case Axis::expert: {
        const int64_t end = step.index + (step.length - 1) * step.step + 1;
        factors.a = factors.a.slice(0, step.index, end, step.step);
        factors.b = factors.b.slice(0, step.index, end, step.step);
        return true;
      }
    }
    return false;
  }
};

}  // namespace

std::optional<Factors> factors_of(const PlacedDelta& placed) {
  const ModuleDelta& delta = *placed.delta;
  Walk walk{.axes = {Axis::row, Axis::column}, .factors = {.a = delta.a, .b = delta.b, .b_bias = delta.b_bias,
            .magnitude = delta.magnitude, .out_scale = {}, .in_scale = {}}};
  if (delta.in_out) std::swap(walk.axes[0], walk.axes[1]);
  if (delta.a.defined() && delta.a.dim() == 3)
    walk.axes = delta.in_out ? std::vector{Axis::expert, Axis::column, Axis::row} : std::vector{Axis::expert, Axis::row, Axis::column};
  if (delta.scale.defined()) (delta.scale.size(1) == 1 ? walk.factors.out_scale : walk.factors.in_scale) = delta.scale.reshape({-1});
  // A DoRA table has its magnitudes along the columns: cutting rows would cut its norms.
  const bool dora_table = delta.kind == ModuleDelta::Kind::dora && delta.embedding;
  if (dora_table && !placed.theirs_view.empty()) return std::nullopt;
  for (const ViewStep& step : placed.theirs_view)
    if (!walk.follow(step, delta.kind == ModuleDelta::Kind::dora)) return std::nullopt;
  const size_t last = walk.axes.size();
  if (walk.axes[last - 2] == Axis::column && walk.axes[last - 1] == Axis::row) {
    Factors& f = walk.factors;
    if (f.b_bias.defined() || f.magnitude.defined()) return std::nullopt;
    if (f.a.defined()) {
      const at::Tensor a = f.b.transpose(-1, -2);
      f.b = f.a.transpose(-1, -2);
      f.a = a;
    }
    std::swap(f.out_scale, f.in_scale);
  } else if (walk.axes[last - 1] != Axis::column || (last == 3 && walk.axes[0] != Axis::expert)) {
    return std::nullopt;
  }
  return walk.factors;
}

at::Tensor dense(const PlacedDelta& placed) {
  const ModuleDelta& delta = *placed.delta;
  if (placed.bias) return view_of(delta.kind == ModuleDelta::Kind::ia3 ? delta.scale.reshape({-1}) : delta.b_bias, placed.theirs_view);
  if (delta.kind == ModuleDelta::Kind::ia3)
    return view_of((delta.in_out ? delta.scale.t() : delta.scale).expand(delta.shape), placed.theirs_view);
  at::Tensor product = at::matmul(delta.b, delta.a);
  if (delta.in_out) product = product.transpose(-1, -2);
  return view_of(product, placed.theirs_view);
}

}  // namespace switchyard
