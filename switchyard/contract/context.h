// Everything a forward pass carries besides its rows: where in the model it is, which phase, the
// facts, run-time overrides, keyed randomness, and where records, shared routings and cached state go.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "switchyard/base/random.h"
#include "switchyard/contract/facts.h"
#include "switchyard/contract/parameters.h"
#include "switchyard/contract/selection.h"

namespace switchyard {

class Adaptation;
class Records;
class StateStore;

enum class Phase {
  train,
  evaluate,  ///< teacher-forced, whole sequences
  generate,  ///< rows arrive one after another; the future does not exist
};

/// Where in the model a call happens.
struct Place {
  int64_t layer = 0;
  int64_t pass = 0;  ///< forward pass within the micro-batch
  std::string site;  ///< "layers.3.feed_forward"
};

/// Run-time wishes that every selector honours.
struct Overrides {
  std::optional<int64_t> k;         ///< experts a unit
  std::optional<double> capacity;   ///< capacity factor
  at::Tensor allowed;               ///< [E] bool
  at::Tensor forced;                ///< [units, k] int64: these experts, whatever the scores
  bool always_off = false;          ///< leave out always-on experts
};

/// Routings shared by name within one pass.
using RoutedStore = std::map<std::string, std::shared_ptr<const Routed>, std::less<>>;

/// Weights that stand in for declared ones during this pass, by full name.
using Overlay = std::map<std::string, at::Tensor, std::less<>>;

struct Context {
  const Facts& facts;
  const Streams& random;
  Phase phase = Phase::evaluate;
  int64_t step = 0;                    ///< optimiser step
  int64_t micro = 0;                   ///< micro-batch within the step
  Place place;
  const Overrides* overrides = nullptr;
  Records* records = nullptr;          ///< null = nobody asks for records
  RoutedStore* routed = nullptr;
  StateStore* state = nullptr;         ///< null = no cache: whole sequences are given
  const Overlay* overlay = nullptr;
  const Adaptation* adaptation = nullptr;  ///< null = no adapters (contract/adaptation.h)
  bool recompute = false;              ///< blocks drop activations and compute them again in backward

  bool training() const { return phase == Phase::train; }
  /// The same pass at another place.
  Context at(std::string_view site) const;
  Context at_layer(int64_t layer, std::string_view site) const;
  /// The same pass over other rows.
  Context with(const Facts& other) const;
  /// The key of a draw made here: equal again when this pass is computed again.
  RandomKey key(std::string_view purpose) const;
  /// The whole value of a parameter in this pass: the overlay's, else the adapted one, else the bound tensor.
  const at::Tensor& operator[](const Parameter& parameter) const;
  /// The parameter as it lies packed, when nothing stands in for it in this pass; else null: then read its value.
  std::shared_ptr<const PackedWeight> packed(const Parameter& parameter) const;

  static const Overrides& none();
  const Overrides& wishes() const { return overrides ? *overrides : none(); }
};

}  // namespace switchyard
