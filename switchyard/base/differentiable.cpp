#define SWITCHYARD_WHOLE_ATEN  // custom functions are made of what cmake/lean leaves out
#include "switchyard/base/differentiable.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace switchyard {
namespace {

/// A backward function, as a node can hold it.
struct Holder : torch::CustomClassHolder {
  Holder(Backward backward, std::vector<size_t> place) : backward(std::move(backward)), place(std::move(place)) {}
  Backward backward;
  std::vector<size_t> place;  ///< of each differentiated input among all
};

class Node : public torch::autograd::Function<Node> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, at::TensorList,
                                                const std::function<Computed()>& compute, const std::vector<size_t>& place) {
    Computed computed = compute();
    context->set_materialize_grads(false);
    context->save_for_backward(std::move(computed.saved));
    context->saved_data["holder"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(std::move(computed.backward), place));
    return std::move(computed.outputs);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list grads) {
    const auto capsule = context->saved_data.at("holder").toCapsule();
    const Holder& holder = static_cast<const Holder&>(*capsule);
    torch::autograd::variable_list all = holder.backward(context->get_saved_variables(), grads), result;
    for (size_t i : holder.place) result.push_back(i < all.size() ? std::move(all[i]) : at::Tensor());
    result.resize(result.size() + 2);  // the two arguments that are no tensors
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> differentiable(const std::vector<at::Tensor>& inputs, const std::function<Computed()>& forward) {
  std::vector<at::Tensor> given;
  std::vector<size_t> place;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined() && inputs[i].requires_grad()) {
      given.push_back(inputs[i]);
      place.push_back(i);
    }
  if (given.empty() || !at::GradMode::is_enabled()) {
    const at::AutoGradMode without(false);
    return forward().outputs;
  }
  return Node::apply(at::TensorList(given), forward, place);
}

std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                  const std::vector<at::Tensor>& grads, bool retain_graph, bool create_graph) {
  return torch::autograd::grad(outputs, inputs, grads, retain_graph, create_graph, /*allow_unused=*/true);
}

}  // namespace switchyard
