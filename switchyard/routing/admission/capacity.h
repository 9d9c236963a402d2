// Limited places: C = max(minimum, ceil(factor · k · S / E)) pairs an expert for every S rows that
// share places (GShard), or the number that a published model counts. Rules differ only in who is served first.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/base/options.h"
#include "switchyard/routing/admission.h"

namespace switchyard {

/// Which rows share an expert's places.
enum class PlaceScope { batch, sequence };
/// Whether a token's second choice is served before a later token's first.
enum class ServeOrder {
  token,   ///< token by token: what a token gets depends on earlier tokens only
  choice,  ///< every first choice before any second (GShard): sees later tokens when k > 1
};

/// What the factor of evaluation multiplies.
enum class PlaceCount {
  share,  ///< an even share of the pairs, k · S / E
  rows,   ///< the rows that share the places (NLLB's evaluation)
};
/// How a broken number of places becomes whole.
enum class PlaceRounding {
  up,
  by_choice,  ///< k times one choice's share rounded up (NLLB's training)
  even,       ///< down, then up to the next even number (OpenMoE)
};
/// Who competes when rows arrive one by one.
enum class PlacesInGeneration {
  open,   ///< nobody: everybody is admitted
  whole,  ///< a step's rows with those before them, as in evaluation: sequences are computed again at every step
};

struct CapacityOptions {
  double factor = 1.25;
  double evaluation_factor = 2.0;
  int64_t places = 0, evaluation_places = 0;  ///< so many whatever the rows; 0 = by the factor
  int64_t minimum = 4;
  PlaceCount evaluation_of = PlaceCount::share;
  PlaceRounding rounding = PlaceRounding::up;
  PlaceScope scope = PlaceScope::batch;
  ServeOrder order = ServeOrder::token;
  PlacesInGeneration generation = PlacesInGeneration::open;
  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("factor", &T::factor, "places relative to an even share, in training").range(0, 1e6);
    f("evaluation_factor", &T::evaluation_factor, "the same in evaluation").range(0, 1e6);
    f("places", &T::places, "places of an expert in training, whatever the tokens; 0 = by the factor").range(0, 1 << 30).unit("pairs");
    f("evaluation_places", &T::evaluation_places, "the same in evaluation").range(0, 1 << 30).unit("pairs");
    f("evaluation_of", &T::evaluation_of, "what the factor of evaluation multiplies: an even share of the pairs, or the number of tokens that share "
      "places").choices({"share", "rows"});
    f("rounding", &T::rounding, "to whole places: up; k times one choice's share rounded up; or down and then up to an even number")
        .choices({"up", "by_choice", "even"});
    f("minimum", &T::minimum, "fewest places of an expert").range(0, 1 << 30).unit("pairs");
    f("scope", &T::scope, "which tokens share an expert's places").choices({"batch", "sequence"});
    f("order", &T::order, "serve token by token, or every first choice before any second").choices({"token", "choice"});
    f("generation", &T::generation, "tokens written one by one: all are admitted, or each step competes with all before it as in evaluation, "
      "which computes the sequence again").choices({"open", "whole"});
  }
  static void describe(Fields<CapacityOptions>& f);
};

/// The segment fact that says how many rows a segment takes in the padded batch that published code counts; absent = its own.
inline constexpr const char* kPaddedLength = "padded_length";

/// Bins and capacities under the options, without a priority. Undefined bins in generation: rows that
/// arrive one by one do not compete, everybody is admitted.
Claims capacity_claims(const Selection& selection, const Context& context, const CapacityOptions& options);
/// [P] double: earlier in `place` [units] int64 is served first, choice by choice when `order` says so.
at::Tensor serve_by(const at::Tensor& place, const Selection& selection, ServeOrder order);
/// What the scope alone lets a decision see.
Reach capacity_reach(const CapacityOptions& options, Phase phase, bool future, std::string because);

}  // namespace switchyard
