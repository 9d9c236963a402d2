// A mixture-of-experts layer with a router of one's own, in a program of one's own.
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "switchyard/layer/moe_layer.h"

namespace switchyard::registrations {
void skeleton_router(Registry& registry);  // written by SWITCHYARD_REGISTER in skeleton/skeleton_router.cpp
}

int main() {
  using namespace switchyard;
  registrations::skeleton_router(Registry::instance());

  MoeOptions options;
  options.experts = 4;
  options.router = "skeleton";
  options.expert.options["hidden"] = Node("32");
  MoeLayer layer(options, /*in=*/16, /*out=*/16);
  Schema schema;
  layer.declare(schema.in("moe"));
  const Streams random(7);
  initialise(schema, random);

  const Facts facts(Segments::single(10));
  const Context context{.facts = facts, .random = random};
  const auto [y, record] = layer.run(random.normal({10, 16}, {.purpose = "input"}), context);
  fmt::print("{} rows of {} values; {} pairs of row and expert; {} parameters\n", y.size(0), y.size(1),
             record.selection()->expert.numel(), schema.count());
  return y.isfinite().all().item<bool>() ? 0 : 1;
}
