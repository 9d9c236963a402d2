#include "switchyard/routing/admission.h"

#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>

#include "switchyard/kernels/admission.h"

namespace switchyard {

void admit(Selection& selection, const Admission& admission, const Context& context) {
  const Claims claims = admission.claims(selection, context);
  if (!claims.bin.defined()) return;
  // Pairs that the router itself gave up ask for nothing.
  const at::Tensor bin = selection.kept.defined()
                             ? at::where(selection.kept, claims.bin, at::full_like(claims.bin, -1)) : claims.bin;
  selection.kept = kernels::admit(bin, claims.priority, claims.exempt, claims.capacity, claims.capacity.size(0));
}

}  // namespace switchyard
