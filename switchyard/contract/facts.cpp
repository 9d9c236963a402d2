#include "switchyard/contract/facts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <mutex>

#include "switchyard/base/error.h"

namespace switchyard {

bool Segments::uniform() const {
  for (int64_t s = 0; s < count(); ++s)
    if (length(s) != length(0) || past_of(s) != 0) return false;
  return true;
}

Segments Segments::single(int64_t rows, bool causal) { return equal(1, rows, causal); }

Segments Segments::equal(int64_t count, int64_t length, bool causal) {
  Segments segments;
  segments.causal = causal;
  for (int64_t s = 1; s <= count; ++s) segments.begin.push_back(s * length);
  return segments;
}

at::Tensor Segments::segment_of_row() const {
  at::Tensor result = at::empty({rows()}, at::kLong);
  int64_t* out = result.mutable_data_ptr<int64_t>();
  for (int64_t s = 0; s < count(); ++s) std::fill(out + begin[s], out + begin[s + 1], s);
  return result;
}

at::Tensor Segments::position_of_row() const {
  at::Tensor result = at::empty({rows()}, at::kLong);
  int64_t* out = result.mutable_data_ptr<int64_t>();
  for (int64_t s = 0; s < count(); ++s)
    for (int64_t r = begin[s]; r < begin[s + 1]; ++r) out[r] = past_of(s) + r - begin[s];
  return result;
}

Segments Segments::take(const at::Tensor& index) const {
  const at::Tensor host = index.cpu().contiguous();
  const int64_t* first = host.const_data_ptr<int64_t>();
  const int64_t* last = first + host.numel();
  Segments taken = *this;
  for (size_t s = 0; s < begin.size(); ++s) taken.begin[s] = std::lower_bound(first, last, begin[s]) - first;
  return taken;
}

void Facts::set_row(std::string name, at::Tensor value) {
  check(value.dim() >= 1 && value.size(0) == segments.rows(), "facts.rows",
        "fact \"{}\" has {} entries for a pass of {} rows", name, value.dim() ? value.size(0) : 0, segments.rows());
  row_[std::move(name)] = std::move(value);
  made_ = nothing_made();
}

void Facts::set_segment(std::string name, at::Tensor value) {
  check(value.dim() >= 1 && value.size(0) == segments.count(), "facts.segments",
        "fact \"{}\" has {} entries for a pass of {} segments", name, value.dim() ? value.size(0) : 0, segments.count());
  segment_[std::move(name)] = std::move(value);
  made_ = nothing_made();
}

struct Facts::Made {
  std::mutex mutex;
  std::vector<int64_t> begin, past;  ///< of the segments that all is for
  /// Tensors of inference mode are for that mode alone.
  std::map<std::string, std::vector<at::Tensor>> tensors[2];
};

std::shared_ptr<Facts::Made> Facts::nothing_made() { return std::make_shared<Made>(); }

std::vector<at::Tensor> Facts::once(const std::string& name, const std::function<std::vector<at::Tensor>()>& make) const {
  const std::lock_guard lock(made_->mutex);
  if (made_->begin != segments.begin || made_->past != segments.past) {
    made_->begin = segments.begin;
    made_->past = segments.past;
    for (auto& mode : made_->tensors) mode.clear();
  }
  std::vector<at::Tensor>& kept = made_->tensors[c10::InferenceMode::is_enabled() ? 1 : 0][name];
  if (kept.empty()) kept = make();
  return kept;
}

bool Facts::has(std::string_view name) const {
  return name == "position" || name == "segment" || row_.count(name) || segment_.count(name);
}

namespace {

std::string known_names(const std::map<std::string, at::Tensor, std::less<>>& a,
                        const std::map<std::string, at::Tensor, std::less<>>& b) {
  std::string names = "position, segment";
  for (const auto* map : {&a, &b})
    for (const auto& [name, value] : *map) names += ", " + name;
  return names;
}

}  // namespace

at::Tensor Facts::row(std::string_view name, std::string_view who) const {
  if (auto found = row_.find(name); found != row_.end()) return found->second;
  if (auto found = segment_.find(name); found != segment_.end())
    return found->second.index_select(0, segments.segment_of_row());
  if (name == "position") return segments.position_of_row();
  if (name == "segment") return segments.segment_of_row();
  fail("facts.missing", "{} needs the fact \"{}\" of every row; the data give {}", who, name, known_names(row_, segment_));
}

at::Tensor Facts::segment(std::string_view name, std::string_view who) const {
  if (auto found = segment_.find(name); found != segment_.end()) return found->second;
  fail("facts.missing", "{} needs the fact \"{}\" of every segment; the data give {}", who, name,
       known_names(row_, segment_));
}

Facts Facts::take(const at::Tensor& index) const {
  Facts taken(segments.take(index));
  taken.segment_ = segment_;
  for (const auto& [name, value] : row_) taken.row_[name] = value.index_select(0, index);
  if (!row_.count("position")) taken.row_["position"] = segments.position_of_row().index_select(0, index);
  return taken;
}

}  // namespace switchyard
