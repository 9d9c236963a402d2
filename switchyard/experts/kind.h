// An expert kind is one pure function of one expert's parameters and rows. From that alone the bank
// runs every engagement; a grouped kernel is an optional override with the same result.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "switchyard/contract/context.h"
#include "switchyard/contract/parameters.h"

namespace switchyard {

/// One tensor of one expert.
struct ExpertTensor {
  std::string name;
  std::vector<int64_t> shape;
  Init init;
  Role role = Role::expert;
};

/// Rows that are sorted by expert, for grouped overrides.
struct GroupedRows {
  at::Tensor x;       ///< [A, D] sorted rows; undefined when `source` and `row` say where they are
  at::Tensor source;  ///< [T, D]
  at::Tensor row;     ///< [A] int64 rows of source
  at::Tensor offset;  ///< [E+1] int64
};

class ExpertKind {
 public:
  static constexpr const char* kInterface = "expert";
  virtual ~ExpertKind() = default;
  /// The tensors of one expert that maps rows of width `in` to width `out`;
  /// throws experts.width when the kind cannot (a copy with in != out).
  virtual std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const = 0;
  /// rows: [n, in] → [n, out]. Any n, 0 included.
  virtual at::Tensor apply(const Params& params, const at::Tensor& rows, const Context& context) const = 0;

  /// All experts' outputs for sorted rows, [A, out]; params are stacked [E, ...].
  /// The default calls `apply` for each expert that has rows.
  virtual at::Tensor apply_grouped(const Params& stacked, const GroupedRows& rows, const Context& context) const;
  /// A kernel that gathers, computes, weighs and scatters in one: [T, out]; nullopt = not available for
  /// these inputs. weight: [A] sorted, or undefined.
  virtual std::optional<at::Tensor> apply_fused(const Params&, const GroupedRows&, const at::Tensor& weight,
                                                const Context&) const { return std::nullopt; }

  /// Whether `apply` and `apply_grouped` take, beside a map "up", the low-rank map of adapters "up.a" [r, in], "up.b" [out, r].
  virtual bool takes_factors() const { return false; }
  /// Whether `apply`, `apply_grouped` and `apply_fused` take weights that are packed (Params::packed).
  virtual bool takes_packed() const { return false; }
  /// Tensors in which the output is linear together, so that scaling them scales it; empty = none.
  virtual std::vector<std::string> output_maps() const { return {}; }

  /// Σ_e coefficient[e] · params_e on effective weights; stacked [E, ...] → one expert's params.
  virtual Params blend(const Params& stacked, const at::Tensor& coefficient) const;
  /// Multiply-adds for one row, for accounting.
  virtual int64_t macs_per_row(int64_t in, int64_t out) const;
};

}  // namespace switchyard
