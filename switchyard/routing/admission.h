// Who gets a place. Methods choose only bins, priority and capacity; one kernel admits
// (kernels/admission.h). Pairs are flagged, never deleted.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/contract/part.h"
#include "switchyard/contract/selection.h"

namespace switchyard {

/// What admission is asked for each pair.
struct Claims {
  at::Tensor bin;        ///< [P] int64: what it competes for (expert, device, expert within a group)
  at::Tensor priority;   ///< [P] float, higher first; undefined = the lower pair index first
  at::Tensor exempt;     ///< [P] bool: takes a place without competing; undefined = none
  at::Tensor capacity;   ///< [bins] int64
};

class Admission {
 public:
  static constexpr const char* kInterface = "admission";
  virtual ~Admission() = default;
  /// Undefined bin = everything is admitted.
  virtual Claims claims(const Selection& selection, const Context& context) const = 0;
  virtual Reach reach(const Overrides&, Phase) const { return {}; }
};

/// Fills selection.kept from the admission's claims.
void admit(Selection& selection, const Admission& admission, const Context& context);

}  // namespace switchyard
