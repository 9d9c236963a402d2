// A router scores, selects and weighs; nothing else. What it returns is an engagement that the
// layer admits, executes and combines (survey 4.1).
#pragma once

#include <functional>

#include "switchyard/contract/part.h"
#include "switchyard/contract/selection.h"
#include "switchyard/routing/combine.h"

namespace switchyard {

/// What a router may look at.
struct RouterInput {
  const at::Tensor& x;                        ///< [T, D]
  std::function<at::Tensor()> dense_outputs;  ///< [T, E, O] of every expert, computed when called; may be empty
};

/// Sizes a router declares its parameters for.
struct RouterSize {
  int64_t width = 0;    ///< D
  int64_t experts = 0;  ///< E
};

class Router {
 public:
  static constexpr const char* kInterface = "router";
  virtual ~Router() = default;
  /// Throws routing.k_range and the like when the options do not fit the size.
  virtual void declare(const Schema& schema, const RouterSize& size) = 0;
  virtual Engagement route(const RouterInput& input, const Context& context) const = 0;
  /// Whether a row's decision depends on other rows, with these overrides, in this phase.
  virtual Reach reach(const Overrides&, Phase) const { return {}; }
  /// Experts that a row engages, on average where the number varies; for accounting.
  virtual double engaged(int64_t experts) const { return static_cast<double>(experts); }
  /// The combine policy of the method's paper; a recipe may set another.
  virtual CombineOptions combine() const { return {}; }
};

/// Turns rows into logits and probabilities. Kept apart from selection so that both combine freely.
class Scorer {
 public:
  static constexpr const char* kInterface = "scorer";
  virtual ~Scorer() = default;
  virtual void declare(const Schema& schema, const RouterSize& size) = 0;
  virtual Gate score(const RouterInput& input, const Context& context) const = 0;
};

}  // namespace switchyard
