// A part of a model: declares parameters, then maps rows to rows. And sites: named calls inside
// parts, around which other methods (adapters, mixtures, probes, depth routing) may sit.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/contract/context.h"
#include "switchyard/contract/parameters.h"
#include "switchyard/contract/state.h"

namespace switchyard {

/// How far a decision looks. The layer takes the larger of router and admission.
struct Reach {
  enum class Unit { row, sequence, batch };
  Unit unit = Unit::row;
  bool future = false;  ///< a row's result may depend on later rows of its sequence
  /// What sees the future or other sequences, for messages; empty when nothing does.
  std::string because;
};
Reach larger(const Reach& a, const Reach& b);

class Part {
 public:
  virtual ~Part() = default;
  virtual void declare(const Schema& schema) = 0;
  /// x: [rows, ...]; returns [rows, ...].
  virtual at::Tensor forward(const at::Tensor& x, const Context& context) const = 0;
  virtual std::vector<StateSpec> states() const { return {}; }
  virtual Reach reach(const Overrides&, Phase) const { return {}; }
  /// Calls visit on this part's children, for walks over a model.
  virtual void each_child(const std::function<void(Part&)>&) {}
};
using PartPtr = std::shared_ptr<Part>;

/// The wrapped call. It may be called never, once or several times, on all rows or on some
/// (with a context over those rows).
using Base = std::function<at::Tensor(const at::Tensor& x, const Context& context)>;

/// What sits around a site: it may add, multiply, replace, take a subset of rows, or only look.
class Around {
 public:
  static constexpr const char* kInterface = "around";
  virtual ~Around() = default;
  /// The site's full name, its layer, and the widths of its rows.
  struct Where { std::string site; int64_t layer = 0; int64_t in = 0; int64_t out = 0; };
  virtual void declare(const Schema& schema, const Where& where) = 0;
  virtual at::Tensor call(const at::Tensor& x, const Base& base, const Context& context) const = 0;
  virtual Reach reach(const Overrides&, Phase) const { return {}; }
  /// True when base is never called: its owner then declares no parameters for it.
  virtual bool replaces() const { return false; }
  virtual std::vector<StateSpec> states() const { return {}; }
  virtual void each_child(const std::function<void(Part&)>&) {}
};
using AroundPtr = std::shared_ptr<Around>;

/// A named call. The outermost occupant was added last; an empty site costs one branch.
class Site {
 public:
  Site() = default;
  Site(std::string name, int64_t layer, int64_t in, int64_t out) : where_{std::move(name), layer, in, out} {}
  const Around::Where& where() const { return where_; }
  bool occupied() const { return !arounds_.empty(); }
  const std::vector<AroundPtr>& occupants() const { return arounds_; }
  void occupy(AroundPtr around) { arounds_.push_back(std::move(around)); }
  /// True when an occupant never calls what it wraps.
  bool replaced() const;
  /// A replacing occupant declares at `schema` itself, others under schema.in("around" or "around.N").
  void declare(const Schema& schema) const;
  Reach reach(const Overrides& overrides, Phase phase) const;
  std::vector<StateSpec> states() const;
  void each_child(const std::function<void(Part&)>& visit) const;

  template <typename Call>
  at::Tensor operator()(const at::Tensor& x, const Context& context, Call&& call) const {
    if (arounds_.empty()) [[likely]] return call(x, context);
    return through(arounds_.size(), x, context, Base(std::forward<Call>(call)));
  }

 private:
  at::Tensor through(size_t depth, const at::Tensor& x, const Context& context, const Base& base) const;
  Around::Where where_;
  std::vector<AroundPtr> arounds_;
};

}  // namespace switchyard
