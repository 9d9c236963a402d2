// What is known about the rows of a forward pass. Rows are packed, never padded: row r belongs to
// the segment whose range contains it. Facts are open and named ("token_id", "domain", "task"), per
// row or per segment; a fact that a method needs and the data lack is an error that names both.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

/// The packed sequences of a pass.
struct Segments {
  std::vector<int64_t> begin{0};   ///< [S+1] first row of each segment, then the number of rows
  std::vector<int64_t> sequence;   ///< [S] identity in the state store; empty = 0, 1, 2, ...
  std::vector<int64_t> past;       ///< [S] rows of the sequence that came before (cached); empty = 0
  bool causal = true;

  int64_t count() const { return static_cast<int64_t>(begin.size()) - 1; }
  int64_t rows() const { return begin.back(); }
  int64_t length(int64_t s) const { return begin[s + 1] - begin[s]; }
  int64_t sequence_of(int64_t s) const { return sequence.empty() ? s : sequence[s]; }
  int64_t past_of(int64_t s) const { return past.empty() ? 0 : past[s]; }
  /// All segments have the same length and none has a past.
  bool uniform() const;

  /// One segment of `rows` rows.
  static Segments single(int64_t rows, bool causal = true);
  /// `count` segments of `length` rows each.
  static Segments equal(int64_t count, int64_t length, bool causal = true);

  at::Tensor segment_of_row() const;   ///< [rows] int64
  at::Tensor position_of_row() const;  ///< [rows] int64: past + offset within the segment
  /// The segments of the rows `index` [n] (ascending): same count, some may be empty.
  Segments take(const at::Tensor& index) const;
};

/// Named tensors about the rows of one pass.
class Facts {
 public:
  Facts() = default;
  explicit Facts(Segments s) : segments(std::move(s)) {}

  Segments segments;

  /// value: [rows, ...].
  void set_row(std::string name, at::Tensor value);
  /// value: [segments, ...]; asked for by row it is repeated over the segment's rows.
  void set_segment(std::string name, at::Tensor value);
  bool has(std::string_view name) const;
  /// [rows, ...]; throws facts.missing naming `who` asked. "position" and "segment" always exist.
  at::Tensor row(std::string_view name, std::string_view who) const;
  /// [segments, ...]; throws facts.missing.
  at::Tensor segment(std::string_view name, std::string_view who) const;
  /// The facts of the rows `index` [n] int64, ascending; positions are kept as they were.
  Facts take(const at::Tensor& index) const;
  /// What follows from the rows' segments and facts alone and every layer needs: made for the first that asks, kept under `name` while
  /// segments and facts stay as they are. Any number of threads may ask.
  std::vector<at::Tensor> once(const std::string& name, const std::function<std::vector<at::Tensor>()>& make) const;

 private:
  struct Made;
  static std::shared_ptr<Made> nothing_made();
  std::map<std::string, at::Tensor, std::less<>> row_, segment_;
  std::shared_ptr<Made> made_ = nothing_made();
};

}  // namespace switchyard
