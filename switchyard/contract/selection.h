// What a router decides. A Selection says who is engaged and how much, apart from how it is
// executed; a TokenBlend mixes tokens into slots and back. Later stations add to a selection
// (admission fills `kept`) and never delete from it: losses count every pair.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <variant>
#include <vector>

namespace switchyard {

/// What one scoring gave. All [units, E], float32 (float64 stays); any may be undefined.
struct Gate {
  at::Tensor logits;         ///< before any softmax, sigmoid, noise or bias
  at::Tensor scores;         ///< what selection looked at (after noise, bias, ...)
  at::Tensor probabilities;  ///< differentiable; what weights and losses use
  at::Tensor noise_std;      ///< of the noise on the logits, where there is one
};

/// How a selection is executed.
enum class Run {
  rows,    ///< each (unit, expert) pair is computed on its rows
  merged,  ///< weights blend the experts' parameters: one merged expert a unit
  gated,   ///< weights multiply inside the bank: every expert sees every row, nothing is gathered
};

/// Pairs in canonical order: unit-major, best first. Units are rows unless `unit_of_row` says otherwise.
struct Selection {
  int64_t units = 0;
  int64_t experts = 0;
  Run run = Run::rows;
  at::Tensor unit_of_row;   ///< [rows] int64; undefined = every row is its own unit

  at::Tensor unit;          ///< [P] int64, ascending
  at::Tensor expert;        ///< [P] int64
  at::Tensor rank;          ///< [P] int64: 0 = the unit's best
  at::Tensor weight;        ///< [P] float: raw, as the router gives it
  at::Tensor kept;          ///< [P] bool, from admission; undefined = all
  int64_t per_unit = 0;     ///< k when every unit has exactly k pairs, else 0

  at::Tensor dense_weight;  ///< [units, E]; a dense selection may carry only this (no pairs)
  at::Tensor always;        ///< [units, A] weights of always-on paths; undefined = 1

  // Outputs that are not the input rows: output o sums source pairs with weights.
  int64_t outputs = 0;      ///< 0 = one output a row
  at::Tensor out, source;   ///< [C] int64: output row, pair index
  at::Tensor out_weight;    ///< [C] float

  std::vector<Gate> gates;  ///< usually one; none for fixed tables; several for prototypes, hierarchies

  bool has_pairs() const { return unit.defined(); }
  int64_t pairs() const { return unit.defined() ? unit.size(0) : 0; }
};

/// k pairs a unit from ids and weights [units, k], best first.
Selection select_pairs(const at::Tensor& ids, const at::Tensor& weights, int64_t experts);
/// All E pairs of every unit from weights [units, E] (order: expert id; rank by falling weight).
Selection select_all(const at::Tensor& weights);
/// Gives a dense selection its pairs; a selection that has them is returned as it is.
Selection with_pairs(Selection selection);
/// A decision over units as one over rows: each row takes its unit's pairs. Without unit_of_row: unchanged.
/// Needs the same number of pairs for every unit.
Selection over_rows(Selection selection);
/// [units, E]: the weights of kept pairs scattered (duplicates add).
at::Tensor dense_weights(const Selection& selection);
/// [E] int64 on the CPU: pairs an expert; only kept ones when `kept_only`.
at::Tensor pair_counts(const Selection& selection, bool kept_only);

/// Tokens mixed into slots and back, group by group (a group: a sequence or a chunk of one).
/// For group g: slots = dispatch[g]ᵀ · x[members[g]], out[members[g]] = combine[g] · f(slots).
struct TokenBlend {
  int64_t experts = 0;
  at::Tensor members;      ///< [G, t] int64 row ids, -1 = padding (its dispatch and combine are zero)
  at::Tensor dispatch;     ///< [G, t, s] float
  at::Tensor combine;      ///< [G, t, s] float
  at::Tensor slot_expert;  ///< [s] int64, ascending
  std::vector<Gate> gates;
};

using Engagement = std::variant<Selection, TokenBlend>;

/// The order in which pairs meet their experts, after admission.
struct Plan {
  at::Tensor order;   ///< [A] int64: pair index, stably sorted by expert; dropped pairs left out
  at::Tensor row;     ///< [A] int64: the row (unit) that each sorted pair reads and adds to
  at::Tensor offset;  ///< [E+1] int64: first sorted pair of each expert, then A
};

/// A decision with its plan, made once and shared by name where several banks follow it.
struct Routed {
  Engagement engagement;
  at::Tensor weight;  ///< [P] float: what multiplies, after the combine policy; undefined for a blend
  Plan plan;          ///< of a selection run as rows

  const Selection* selection() const { return std::get_if<Selection>(&engagement); }
};

}  // namespace switchyard
