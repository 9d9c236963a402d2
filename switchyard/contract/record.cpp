#include "switchyard/contract/record.h"

namespace switchyard {

const std::vector<Gate>& Record::gates() const {
  return std::visit([](const auto& engagement) -> const std::vector<Gate>& { return engagement.gates; }, routed.engagement);
}

void Record::each_differentiable(const std::function<void(at::Tensor&)>& visit) {
  const auto one = [&](at::Tensor& tensor) {
    if (tensor.defined() && at::isFloatingType(tensor.scalar_type())) visit(tensor);
  };
  const auto gates = [&](std::vector<Gate>& list) {
    for (Gate& gate : list)
      for (at::Tensor* tensor : {&gate.logits, &gate.scores, &gate.probabilities, &gate.noise_std}) one(*tensor);
  };
  if (auto* selection = std::get_if<Selection>(&routed.engagement)) {
    for (at::Tensor* tensor : {&selection->weight, &selection->dense_weight, &selection->always, &selection->out_weight})
      one(*tensor);
    gates(selection->gates);
  } else {
    auto& blend = std::get<TokenBlend>(routed.engagement);
    one(blend.dispatch);
    one(blend.combine);
    gates(blend.gates);
  }
  one(routed.weight);
  for (auto& [name, tensor] : extras) one(tensor);
  for (auto& [name, tensor] : losses) one(tensor);
}

}  // namespace switchyard
