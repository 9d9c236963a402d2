// What adapters that were loaded beside a model do to its parameters during one pass (Context::adaptation): nothing in the
// model itself changes, so passes with other adapters, or none, may go on beside it. Parts multiply by a weight through
// `linear`, look up rows through `embedding`, and read any other tensor whole through Context::operator[]; without an
// adaptation these are the plain operations.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/contract/parameters.h"

namespace switchyard {

struct Context;

/// A low-rank map beside each map of a stack of experts, or beside one map: y_e += b_e (a_e x) + bias_e. Undefined tensors = nothing.
struct StackedFactors {
  at::Tensor a;     ///< [E, r, in], or [r, in]
  at::Tensor b;     ///< [E, out, r], or [out, r]; scaled
  at::Tensor bias;  ///< [E, out], or [out], scaled; undefined = none
};

class Adaptation {
 public:
  virtual ~Adaptation() = default;
  /// The value of a parameter that is read whole; null = as it is bound. Throws when adapters act on it row by row.
  virtual const at::Tensor* value(const Parameter& parameter) const = 0;
  /// x: [rows, in] → x·Wᵀ + b as adapted; undefined = nothing acts on this map.
  virtual at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter& bias, const Context& context) const = 0;
  /// ids: [rows] int64 → [rows, D] as adapted; undefined = nothing acts on this table.
  virtual at::Tensor embedding(const at::Tensor& ids, const Parameter& table, const Context& context) const = 0;
  /// What acts on the stack, or the map, when all of it is low rank: then `base` is the tensor beside which it stands, undefined when
  /// that is the parameter's packed one. Undefined factors = nothing, or more than that: read the value.
  virtual StackedFactors factors(const Parameter& stack, at::Tensor& base) const = 0;
};

/// x: [rows, in] → [rows, out], x·Wᵀ + b. bias may be an empty handle.
at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter& bias, const Context& context);
/// ids: [rows] int64 → rows of the table [V, D].
at::Tensor embedding(const at::Tensor& ids, const Parameter& table, const Context& context);

}  // namespace switchyard
