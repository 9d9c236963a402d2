#include "switchyard/models/families/name_map.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "switchyard/base/error.h"
#include "switchyard/base/mapped_pages.h"
#include "switchyard/base/options.h"
#include "switchyard/base/progress.h"
#include "switchyard/kernels/packed_views.h"
#include "switchyard/kernels/packed_weight.h"

namespace switchyard {
namespace {

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t extent : shape) product *= extent;
  return product;
}

std::vector<int64_t> shape_of(std::vector<int64_t> shape, const View& view) {
  for (const ViewStep& step : view) {
    TORCH_INTERNAL_ASSERT(step.dim >= 0 && step.dim < static_cast<int64_t>(shape.size()));
    const auto dim = static_cast<size_t>(step.dim);
    switch (step.kind) {
      case ViewStep::Kind::select: shape.erase(shape.begin() + step.dim); break;
      case ViewStep::Kind::slice: shape[dim] = step.length; break;
      case ViewStep::Kind::transpose: std::swap(shape[dim], shape[static_cast<size_t>(step.index)]); break;
    }
  }
  return shape;
}

constexpr int64_t kSmallTensor = 1 << 18;

/// Numbers that a model computes with: no integers, nothing that needs a scale beside it.
bool is_plain_float(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

/// The same by a file's spelling; unset for all others.
std::optional<at::ScalarType> plain_float(std::string_view dtype) {
  for (const auto& [name, type] : {std::pair{"F32", at::kFloat}, std::pair{"F64", at::kDouble}, std::pair{"F16", at::kHalf}, std::pair{"BF16", at::kBFloat16}})
    if (dtype == name) return type;
  return std::nullopt;
}

/// Experts' matrices, wherever the files have them, as one stack [E, ...] without a copy; undefined when their pages cannot be so.
at::Tensor stacked_in_place(const std::vector<at::Tensor>& experts, const FileMaps& maps) {
  const at::Tensor& first = experts.front();
  std::vector<const void*> begins;
  for (const at::Tensor& expert : experts) {
    if (!expert.is_contiguous() || expert.scalar_type() != first.scalar_type() || expert.sizes() != first.sizes()) return {};
    begins.push_back(expert.const_data_ptr());
  }
  const std::shared_ptr<uint8_t> pages = maps.stack(begins, first.nbytes());
  if (!pages) return {};
  for (const void* begin : begins) maps.give_back(begin, first.nbytes());
  std::vector<int64_t> shape = first.sizes().vec();
  shape.insert(shape.begin(), static_cast<int64_t>(experts.size()));
  return at::from_blob(pages.get(), shape, [pages](void*) {}, first.options());
}

}  // namespace

at::Tensor view_of(at::Tensor tensor, const View& view) {
  for (const ViewStep& step : view) {
    switch (step.kind) {
      case ViewStep::Kind::select: tensor = tensor.select(step.dim, step.index); break;
      case ViewStep::Kind::slice:
        tensor = tensor.slice(step.dim, step.index, step.index + (step.length - 1) * step.step + 1, step.step);
        break;
      case ViewStep::Kind::transpose: tensor = tensor.transpose(step.dim, step.index); break;
    }
  }
  return tensor;
}

namespace {

/// The same of a packed tensor; null where that is no choice of its rows.
Packed view_of_packed(Packed tensor, const View& view) {
  for (const ViewStep& step : view) {
    if (!tensor) return nullptr;
    const auto last = static_cast<int64_t>(tensor->shape().size()) - 1;
    switch (step.kind) {
      case ViewStep::Kind::select: tensor = packed_select(tensor, step.dim, step.index); break;
      case ViewStep::Kind::slice: tensor = packed_slice(tensor, step.dim, step.index, step.length, step.step); break;
      case ViewStep::Kind::transpose:
        tensor = std::min(step.dim, step.index) == last - 1 && std::max(step.dim, step.index) == last ? packed_transposed(tensor) : nullptr;
        break;
    }
  }
  return tensor;
}

}  // namespace

NameMap::NameMap(const Schema& schema) : parameters_(schema.all()) {
  for (size_t i = 0; i < parameters_.size(); ++i) ours_at_[parameters_[i].name()] = i;
}

size_t NameMap::ours_index(const std::string& name) const {
  const auto found = ours_at_.find(name);
  TORCH_INTERNAL_ASSERT(found != ours_at_.end(), "the model declares no parameter ", name);
  return found->second;
}

size_t NameMap::theirs_index(const std::string& name, const std::vector<int64_t>& shape) {
  const auto [place, fresh] = theirs_at_.emplace(name, theirs_.size());
  if (fresh) theirs_.push_back({name, shape});
  TORCH_INTERNAL_ASSERT(theirs_[place->second].shape == shape, "two shapes for ", name);
  return place->second;
}

void NameMap::link(const std::string& ours, View ours_view, const std::string& theirs, std::vector<int64_t> shape,
                   View theirs_view) {
  const size_t index = ours_index(ours);
  TORCH_INTERNAL_ASSERT(shape_of(parameters_[index].spec().shape, ours_view) == shape_of(shape, theirs_view), ours, " and ",
                        theirs, " are linked by views of other shapes");
  linked_.insert(index);
  links_.push_back({index, theirs_index(theirs, shape), std::move(ours_view), std::move(theirs_view)});
}

void NameMap::rename(const std::string& ours, const std::string& theirs) {
  link(ours, {}, theirs, parameters_[ours_index(ours)].spec().shape, {});
}

void NameMap::copy(const std::string& ours, const std::string& theirs) {
  rename(ours, theirs);
  links_.back().copy = true;
}

void NameMap::take_from(const std::string& theirs, const std::string& instead) {
  const auto found = theirs_at_.extract(instead);
  TORCH_INTERNAL_ASSERT(!found.empty(), "the name table has no ", instead);
  theirs_[found.mapped()].name = theirs;
  theirs_at_[theirs] = found.mapped();
  ignore(instead);
}

bool NameMap::ignores(const std::string& theirs) const {
  return std::find(ignored_.begin(), ignored_.end(), theirs) != ignored_.end() ||
         std::any_of(repeats_.begin(), repeats_.end(), [&](const Repeat& repeat) { return repeat.theirs == theirs; }) ||
         std::any_of(ignored_prefixes_.begin(), ignored_prefixes_.end(), [&](const auto& prefix) { return theirs.starts_with(prefix); });
}

void NameMap::rename_all() {
  for (const Parameter& parameter : parameters_) rename(parameter.name(), parameter.name());
}

std::vector<NameMap::Correspondence> NameMap::correspondences() const {
  std::vector<Correspondence> list;
  for (const Theirs& theirs : theirs_) list.push_back({theirs.name, theirs.shape, {}});
  for (const Link& link : links_) list[link.theirs].held.push_back({parameters_[link.ours], link.ours_view, link.theirs_view});
  return list;
}

void NameMap::check_complete() const {
  std::vector<int64_t> ours(parameters_.size()), theirs(theirs_.size());
  for (const Link& link : links_) {
    const int64_t count = elements(shape_of(theirs_[link.theirs].shape, link.theirs_view));
    if (!link.copy) ours[link.ours] += count;
    theirs[link.theirs] += count;
  }
  for (size_t i = 0; i < ours.size(); ++i)
    TORCH_INTERNAL_ASSERT(ours[i] == parameters_[i].count(), "the name table covers ", ours[i], " elements of ",
                          parameters_[i].name());
  for (size_t i = 0; i < theirs.size(); ++i)
    TORCH_INTERNAL_ASSERT(theirs[i] == elements(theirs_[i].shape), "the name table covers ", theirs[i], " elements of ",
                          theirs_[i].name);
}

void NameMap::check_repeats(const WeightSource& file, const std::string& where) const {
  constexpr int64_t kRows = 64;  // enough to tell, and few pages of a large file
  const auto some_rows = [](const at::Tensor& whole) { return whole.dim() == 0 ? whole : whole.slice(0, 0, std::nullopt, whole.size(0) / kRows + 1); };
  for (const Repeat& repeat : repeats_) {
    if (!file.has(repeat.theirs) || file.packed(repeat.theirs)) continue;
    const auto link = std::find_if(links_.begin(), links_.end(), [&](const Link& l) { return l.ours == repeat.ours && l.ours_view.empty() && l.theirs_view.empty(); });
    if (link == links_.end() || file.packed(theirs_[link->theirs].name)) continue;
    const std::string& original = theirs_[link->theirs].name;
    const at::Tensor one = some_rows(file.get(original)), other = some_rows(file.get(repeat.theirs));
    const at::ScalarType type = one.element_size() <= other.element_size() ? one.scalar_type() : other.scalar_type();  // what both can say
    if (one.to(type).equal(other.to(type))) continue;
    check(repeat.otherwise == NoCopy::warn, "model.tensor_differs", "{}: {} and {} hold different numbers, but one tensor stands for both in this family; "
          "leave {} out if {} is meant", where, repeat.theirs, original, repeat.theirs, original);
    log_warning(fmt::format("{}: {} differs from {}; the config ties them, so {} is left aside", where, repeat.theirs, original, repeat.theirs));
  }
}

void NameMap::bind(const WeightSource& file, const std::string& where, std::optional<at::ScalarType> dtype) const {
  check_complete();
  at::NoGradGuard guard;
  // Names and shapes first: a wrong file is refused before anything is allocated.
  std::vector<std::string> unexpected;
  for (const TensorInfo& info : file.tensors())
    if (!theirs_at_.contains(info.name) && !ignores(info.name))
      unexpected.push_back(info.name);
  std::vector<std::string> missing;
  for (const Theirs& theirs : theirs_)
    if (!file.has(theirs.name)) missing.push_back(theirs.name);
  if (!missing.empty()) {
    const std::string near = nearest(missing.front(), unexpected);
    fail("model.missing_tensor", "{} lacks {} of the {} tensors that its config describes, the first is {}{}", where,
         missing.size(), theirs_.size(), missing.front(), near.empty() ? "" : "; it has " + near);
  }
  check(unexpected.empty(), "model.unexpected_tensor", "{} has {} tensors that its config does not describe, the first is {}",
        where, unexpected.size(), unexpected.empty() ? "" : unexpected.front());
  std::vector<std::optional<at::ScalarType>> types(theirs_.size());  // of those that lie as libtorch has them
  for (const TensorInfo& info : file.tensors()) {
    const auto found = theirs_at_.find(info.name);
    if (found == theirs_at_.end()) continue;
    types[found->second] = plain_float(info.dtype);
    check(info.shape == theirs_[found->second].shape, "model.tensor_shape", "{}: {} has shape [{}], but the config says [{}]",
          where, info.name, fmt::join(info.shape, ", "), fmt::join(theirs_[found->second].shape, ", "));
  }
  check_repeats(file, where);

  const auto read = [&](const Link& link) {
    at::Tensor tensor = file.get(theirs_[link.theirs].name);
    const std::optional<at::ScalarType> fixed = parameters_[link.ours].spec().dtype;
    check(is_plain_float(tensor.scalar_type()) || (fixed && tensor.scalar_type() == *fixed), "model.tensor_dtype",
          "{}: {} is stored as {}; weights are read as float64, float32, float16 or bfloat16", where,
          theirs_[link.theirs].name, c10::toString(tensor.scalar_type()));
    return view_of(std::move(tensor), link.theirs_view);
  };
  std::vector<std::vector<const Link*>> parts(parameters_.size());
  for (const Link& link : links_) parts[link.ours].push_back(&link);
  // Packed weights stay packed where whole rows of theirs are a whole tensor of ours, or the entries of a stack.
  const auto packed = [&](size_t i) -> Packed {
    const std::vector<const Link*>& links = parts[i];
    const ParamSpec& spec = parameters_[i].spec();
    if (spec.dtype || spec.buffer || spec.shape.size() < 2) return nullptr;
    const bool whole = links.size() == 1 && links[0]->ours_view.empty();
    if (!whole && static_cast<int64_t>(links.size()) != spec.shape[0]) return nullptr;
    std::vector<Packed> entries(links.size());
    for (const Link* link : links) {
      const bool entry = link->ours_view.size() == 1 && link->ours_view[0].kind == ViewStep::Kind::select && link->ours_view[0].dim == 0;
      if (!whole && !entry) return nullptr;
      Packed theirs = view_of_packed(file.packed(theirs_[link->theirs].name), link->theirs_view);
      if (!theirs) return nullptr;
      entries[whole ? 0 : static_cast<size_t>(link->ours_view[0].index)] = std::move(theirs);
    }
    return whole ? entries[0] : packed_stack(entries);
  };
  const FileMaps maps;
  // The matrices that make up a stack of experts in their order: one tensor each, or slices of a fused one; empty when it is made
  // in any other way.
  const auto matrices = [&](const std::vector<const Link*>& links, const at::Tensor& first) {
    std::vector<at::Tensor> experts;
    if (links.size() == 1 && links[0]->ours_view.empty()) {
      for (int64_t e = 0; e < first.size(0); ++e) experts.push_back(first.select(0, e));
      return experts;
    }
    for (size_t e = 0; e < links.size(); ++e) {
      const View& ours = links[e]->ours_view;
      const bool entry = ours.size() == 1 && ours[0].kind == ViewStep::Kind::select && ours[0].dim == 0 && ours[0].index == static_cast<int64_t>(e);
      if (!entry) return std::vector<at::Tensor>();
      experts.push_back(e == 0 ? first : read(*links[e]));
    }
    return experts;
  };
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    if (const auto lying = std::dynamic_pointer_cast<const PackedRows>(packed(i))) {
      Packed ready = packed_for_products(lying);
      if (ready != lying)
        for (const std::span<const uint8_t> read_now : lying->memory()) maps.give_back(read_now.data(), read_now.size());
      parameter.bind(std::make_shared<kernels::PackedParameter>(std::move(ready), dtype.value_or(at::kFloat)));
      continue;
    }
    at::Tensor first = read(*parts[i].front());
    at::ScalarType stored = first.scalar_type();  // of a stack whose parts differ, the one that holds them all
    for (const Link* link : parts[i])
      if (const auto type = types[link->theirs]) stored = c10::promoteTypes(stored, *type);
    const at::ScalarType type = parameter.spec().dtype.value_or(dtype.value_or(stored));
    const bool same = first.scalar_type() == type;
    const bool plain = file.packed(theirs_[parts[i].front()->theirs].name) == nullptr;  // what is unpacked has memory of its own
    if (parts[i].size() == 1 && parts[i][0]->ours_view.empty() && first.is_contiguous()) {
      // As it lies in the file, without a copy where the type allows it. Small ones are copied to where products sum them in
      // one order wherever they lay.
      parameter.bind(same && static_cast<int64_t>(first.nbytes()) <= kSmallTensor ? first.clone() : first.to(type));
      if (!same && plain) maps.give_back(first.const_data_ptr(), first.nbytes());
      continue;
    }
    if (same && plain && parameter.spec().expert_dim == 0 && parameter.count() * static_cast<int64_t>(first.element_size()) > kSmallTensor) {
      const std::vector<at::Tensor> experts = matrices(parts[i], first);
      if (at::Tensor stack = experts.empty() ? at::Tensor() : stacked_in_place(experts, maps); stack.defined()) {
        parameter.bind(std::move(stack));
        continue;
      }
    }
    at::Tensor whole = at::empty(parameter.spec().shape, type);
    for (const Link* link : parts[i]) {
      const at::Tensor part = read(*link);
      view_of(whole, link->ours_view).copy_(part);
      // It is not needed a second time. Of a view that is no run of bytes, the whole tensor goes: another part comes back from the file.
      const at::Tensor read_now = part.is_contiguous() ? part : file.get(theirs_[link->theirs].name);
      if (plain && read_now.is_contiguous()) maps.give_back(read_now.const_data_ptr(), read_now.nbytes());
    }
    parameter.bind(std::move(whole));
  }
}

NamedTensors NameMap::collect(std::optional<at::ScalarType> dtype, const std::set<std::string>& without) const {
  check_complete();
  at::NoGradGuard guard;
  std::vector<std::vector<const Link*>> parts(theirs_.size());
  for (const Link& link : links_) parts[link.theirs].push_back(&link);
  NamedTensors tensors;
  for (size_t i = 0; i < theirs_.size(); ++i) {
    if (without.contains(theirs_[i].name)) continue;
    const auto part = [&](const Link& link) {
      const Parameter& parameter = parameters_[link.ours];
      const at::Tensor view = view_of(parameter.tensor().detach(), link.ours_view);
      return parameter.spec().buffer ? view : view.to(dtype.value_or(view.scalar_type()));
    };
    if (parts[i].size() == 1 && parts[i][0]->theirs_view.empty()) {
      tensors.emplace_back(theirs_[i].name, part(*parts[i][0]));
      continue;
    }
    at::ScalarType type = part(*parts[i].front()).scalar_type();
    for (const Link* link : parts[i])
      if (!dtype) type = c10::promoteTypes(type, part(*link).scalar_type());
    at::Tensor whole = at::empty(theirs_[i].shape, part(*parts[i].front()).options().dtype(type));
    for (const Link* link : parts[i]) view_of(whole, link->theirs_view).copy_(part(*link));
    tensors.emplace_back(theirs_[i].name, std::move(whole));
  }
  return tensors;
}

}  // namespace switchyard
