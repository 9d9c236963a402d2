// The body of a sub-layer (attention, feed-forward, ...), chosen by name from a recipe, and the maker
// of the sites inside it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/relative_bias.h"
#include "switchyard/blocks/rotary.h"
#include "switchyard/contract/part.h"

namespace switchyard {

/// What a body is built for.
struct BodyPlace {
  int64_t layer = 0;
  int64_t layers = 1;
  int64_t width = 0;             ///< D
  std::string name;              ///< "layers.3.attention"
  double init_deviation = 0.02;
  double norm_eps = 1e-5;
  Norm norm = Norm::rms;
  std::optional<RotaryOptions> rotary;  ///< unset = queries and keys do not turn
  std::shared_ptr<RelativeBias> relative = {};  ///< of the stack; null = scores have no bias by distance
  /// Makes the site `name` + "." + inner with its occupants from the recipe; inner empty = the body itself.
  std::function<Site(const std::string& inner, int64_t in, int64_t out)> site;
};

class Body : public Part {
 public:
  static constexpr const char* kInterface = "body";
  /// Called once, before declare.
  virtual void prepare(const BodyPlace& place) = 0;
};

}  // namespace switchyard
