// How the tensors of a published file and ours correspond: one table, used to read and to write.
//
// A link says that a view of one of our tensors holds the same numbers as a view of one of theirs. Views are selections,
// slices and transpositions, all of which can be written through; so reading copies one way and writing the other, and
// what is read and written again is equal bit for bit. A table is made from shapes alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "switchyard/contract/parameters.h"
#include "switchyard/formats/safetensors.h"

namespace switchyard {

/// One step from a tensor to a view of it.
struct ViewStep {
  enum class Kind { select, slice, transpose };
  Kind kind;
  int64_t dim = 0;
  int64_t index = 0;             ///< select: which; slice: the first; transpose: the other axis
  int64_t length = 0, step = 1;  ///< slice
  static ViewStep select(int64_t dim, int64_t index) { return {Kind::select, dim, index}; }
  static ViewStep slice(int64_t dim, int64_t first, int64_t length, int64_t step = 1) { return {Kind::slice, dim, first, length, step}; }
  static ViewStep transpose(int64_t a, int64_t b) { return {Kind::transpose, a, b}; }
};
using View = std::vector<ViewStep>;
at::Tensor view_of(at::Tensor tensor, const View& view);

/// Whether a file has a tensor of that name.
using HasTensor = std::function<bool(const std::string&)>;

class NameMap {
 public:
  /// Over the declared parameters of a model.
  explicit NameMap(const Schema& schema);

  bool declares(const std::string& ours) const { return ours_at_.contains(ours); }
  bool linked(const std::string& ours) const { return linked_.contains(ours_index(ours)); }
  const std::vector<int64_t>& shape(const std::string& ours) const { return parameters_[ours_index(ours)].spec().shape; }
  /// Theirs is ours under another name.
  void rename(const std::string& ours, const std::string& theirs);
  /// Any other correspondence; `shape` is that of their whole tensor.
  void link(const std::string& ours, View ours_view, const std::string& theirs, std::vector<int64_t> shape, View theirs_view);
  /// Theirs is written as one more copy of ours; whoever reads knows it as ignored.
  void copy(const std::string& ours, const std::string& theirs);
  /// A tensor that may stand in a file and says nothing new (stored angles).
  void ignore(const std::string& theirs) { ignored_.push_back(theirs); }
  /// The same for every tensor whose name begins so.
  void ignore_below(const std::string& prefix) { ignored_prefixes_.push_back(prefix); }
  /// A tensor that may stand in a file as a copy of ours (a tied head). One that is none is refused when bound (model.tensor_differs),
  /// or named in a warning where the config alone decides.
  enum class NoCopy { refuse, warn };
  void repeat(const std::string& ours, const std::string& theirs, NoCopy otherwise) { repeats_.push_back({ours_index(ours), theirs, otherwise}); }
  /// What the table has as `instead` is read from `theirs`; `instead` says nothing then.
  void take_from(const std::string& theirs, const std::string& instead);
  /// Every parameter under its own name.
  void rename_all();

  /// Their tensors with what of ours holds the same numbers, in the order of the table.
  struct Held { Parameter ours; View ours_view, theirs_view; };
  struct Correspondence { std::string theirs; std::vector<int64_t> shape; std::vector<Held> held; };
  std::vector<Correspondence> correspondences() const;

  /// Binds every parameter from `file`. dtype: of the weights in memory; unset = as stored. Throws model.missing_tensor,
  /// model.unexpected_tensor, model.tensor_shape, model.tensor_dtype, model.tensor_differs; `where` names the file.
  void bind(const WeightSource& file, const std::string& where, std::optional<at::ScalarType> dtype) const;
  /// Their tensors from bound parameters, in the order of the table, without some.
  NamedTensors collect(std::optional<at::ScalarType> dtype = {}, const std::set<std::string>& without = {}) const;

 private:
  struct Theirs { std::string name; std::vector<int64_t> shape; };
  struct Link { size_t ours, theirs; View ours_view, theirs_view; bool copy = false; };
  struct Repeat { size_t ours; std::string theirs; NoCopy otherwise; };
  size_t ours_index(const std::string& name) const;
  bool ignores(const std::string& theirs) const;
  size_t theirs_index(const std::string& name, const std::vector<int64_t>& shape);
  void check_complete() const;
  void check_repeats(const WeightSource& file, const std::string& where) const;

  std::vector<Parameter> parameters_;
  std::map<std::string, size_t> ours_at_, theirs_at_;
  std::vector<Theirs> theirs_;
  std::vector<Link> links_;
  std::vector<Repeat> repeats_;
  std::vector<std::string> ignored_, ignored_prefixes_;
  std::set<size_t> linked_;
};

}  // namespace switchyard
