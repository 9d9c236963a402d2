// A linear map at a named site: the one way in which bodies multiply by a weight, so that adapters, mixtures
// and probes can sit at any of them.
#pragma once

#include <cstdint>
#include <string>

#include "switchyard/blocks/body.h"

namespace switchyard {

class SiteLinear {
 public:
  SiteLinear() = default;
  /// Site `place.name`.`name`, rows of width in → out.
  SiteLinear(const BodyPlace& place, const std::string& name, int64_t in, int64_t out, bool bias);

  /// Declares `name`.weight [out, in], `name`.bias [out] unless a site occupant replaces the map, then the occupants.
  void declare(const Schema& schema);
  /// x: [T, in] → [T, out].
  at::Tensor operator()(const at::Tensor& x, const Context& context) const;
  const Site& site() const { return site_; }
  /// The map's own weight [out, in]; an empty handle where an occupant replaces it.
  const Parameter& weight() const { return weight_; }

 private:
  std::string name_;
  int64_t in_ = 0, out_ = 0;
  bool has_bias_ = false;
  double deviation_ = 0.02;
  Site site_;
  Parameter weight_, bias_;
};

}  // namespace switchyard
