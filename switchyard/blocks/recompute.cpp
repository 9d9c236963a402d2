#include "switchyard/blocks/recompute.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "switchyard/base/autocast.h"
#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/blocks/memory.h"
#include "switchyard/contract/record.h"

namespace switchyard {
namespace {

/// Autocast as it is now, its cache off: a weight cast without gradients must not be found by somebody who needs them.
Autocast uncached() {
  Autocast autocast = Autocast::now();
  autocast.cached = false;
  return autocast;
}

/// Calls visit on the differentiable tensors of shared routings and records, in a fixed order.
void each_tensor(RoutedStore& routed, Records* records, const std::function<void(at::Tensor&)>& visit) {
  for (auto& [name, shared] : routed) {
    Record decision;
    decision.routed = *shared;
    decision.each_differentiable(visit);
    shared = std::make_shared<const Routed>(std::move(decision.routed));
  }
  if (records)
    for (Record& record : records->all()) record.each_differentiable(visit);
}

size_t index_of(const std::vector<at::Tensor>& list, const at::Tensor& tensor) {
  return std::find_if(list.begin(), list.end(), [&](const at::Tensor& t) { return t.is_same(tensor); }) - list.begin();
}

/// Facts as they are, but with those encoded rows.
Facts with_memory(const Facts& facts, const at::Tensor& rows) {
  Facts changed = facts;
  if (rows.defined()) changed.set_segment(kMemory, rows);
  return changed;
}

/// The encoded rows that a pass differentiates; undefined = there are none.
at::Tensor memory_input(const Facts& facts) {
  const at::Tensor rows = facts.has(kMemory) ? facts.segment(kMemory, "recomputation") : at::Tensor();
  return rows.defined() && rows.requires_grad() ? rows : at::Tensor();
}

/// A call that can be made again: the segment and its own copy of everything its context points to.
struct Call {
  Call(const Context& context, Base base)
      : segment(std::move(base)), facts(context.facts), random(context.random), overrides(context.wishes()),
        overlay(context.overlay ? *context.overlay : Overlay{}), given(context.routed ? *context.routed : RoutedStore{}),
        outer(context), records(context.records != nullptr), shares(context.routed != nullptr) {}

  /// What one run leaves behind: its records, and the routings that it decided.
  struct Trace {
    Records records;
    RoutedStore routed;
  };
  /// memory: encoded rows that stand for those of the facts, or undefined.
  at::Tensor run(const at::Tensor& x, const at::Tensor& memory, const RoutedStore& before, Trace& trace) const {
    trace.routed = before;
    const Facts known = with_memory(facts, memory);
    const Context context{.facts = known, .random = random, .phase = outer.phase, .step = outer.step, .micro = outer.micro,
                          .place = outer.place, .overrides = &overrides, .records = records ? &trace.records : nullptr,
                          .routed = shares ? &trace.routed : nullptr, .state = nullptr, .overlay = &overlay,
                          .adaptation = outer.adaptation, .recompute = false};
    AutocastScope scope(autocast);
    at::Tensor y = segment(x, context);
    // A name may be decided again (each layer its own): what stands as it stood was not decided here.
    std::erase_if(trace.routed, [&](const auto& entry) {
      const auto found = before.find(entry.first);
      return found != before.end() && found->second == entry.second;
    });
    return y;
  }

  Base segment;
  Facts facts;
  Streams random;
  Overrides overrides;
  Overlay overlay;
  RoutedStore given;  ///< routings decided before the segment
  struct Outer {
    explicit Outer(const Context& c)
        : phase(c.phase), step(c.step), micro(c.micro), place(c.place), adaptation(c.adaptation) {}
    Phase phase;
    int64_t step, micro;
    Place place;
    const Adaptation* adaptation;
  } outer;
  bool records, shares;
  Autocast autocast = uncached();
  std::vector<size_t> output_of;  ///< the output that each tensor of the trace is (0 is y)
};
using CallPtr = std::shared_ptr<Call>;

/// Runs the call again and differentiates it. inputs: x, encoded rows where there are some, the shared routings' tensors, the
/// parameters.
std::vector<at::Tensor> run_backward(const Call& call, std::vector<at::Tensor> inputs, const std::vector<at::Tensor>& grads) {
  check(!at::GradMode::is_enabled(), "blocks.recompute_twice",
        "a recomputed block has no second derivative; train with recompute: false");
  at::AutoGradMode with_grad(true);

  // What the segment is given begins a graph of its own.
  inputs[0] = inputs[0].detach().requires_grad_();
  at::Tensor memory = memory_input(call.facts);
  const size_t first = memory.defined() ? 2 : 1;
  if (memory.defined()) memory = inputs[1] = inputs[1].detach().requires_grad_();
  RoutedStore routed = call.given;
  std::vector<at::Tensor> before;
  each_tensor(routed, nullptr, [&](at::Tensor& tensor) {
    if (!tensor.requires_grad()) return;
    const size_t index = index_of(before, tensor);
    if (index == before.size()) {
      before.push_back(tensor);
      inputs[first + index] = tensor.detach().requires_grad_();
    }
    tensor = inputs[first + index];
  });

  Call::Trace trace;
  std::vector<at::Tensor> outputs(grads.size());
  outputs[0] = call.run(inputs[0], memory, routed, trace);
  size_t slot = 0;
  each_tensor(trace.routed, &trace.records, [&](at::Tensor& tensor) {
    at::Tensor& output = outputs[call.output_of.at(slot++)];
    if (!output.defined()) output = tensor;
  });

  std::vector<at::Tensor> roots, root_grads, wanted, found;
  for (size_t i = 0; i < outputs.size(); ++i)
    if (grads[i].defined() && outputs[i].defined() && outputs[i].requires_grad()) {
      roots.push_back(outputs[i]);
      root_grads.push_back(grads[i]);
    }
  for (const at::Tensor& input : inputs)
    if (input.requires_grad()) wanted.push_back(input);
  if (!roots.empty()) found = gradients(roots, wanted, root_grads);
  found.resize(wanted.size());
  std::vector<at::Tensor> result;
  size_t next = 0;
  for (const at::Tensor& input : inputs) result.push_back(input.requires_grad() ? found[next++] : at::Tensor());
  return result;
}

}  // namespace

at::Tensor recompute(const at::Tensor& x, const std::vector<Parameter>& parameters, const Context& context,
                     const Base& segment) {
  if (!at::GradMode::is_enabled() || context.state != nullptr) return segment(x, context);
  const CallPtr call = std::make_shared<Call>(context, segment);
  std::vector<at::Tensor> inputs{x};
  const at::Tensor memory = memory_input(context.facts);
  if (memory.defined()) inputs.push_back(memory);
  RoutedStore given = call->given;
  each_tensor(given, nullptr, [&](at::Tensor& tensor) {
    if (tensor.requires_grad() && index_of(inputs, tensor) == inputs.size()) inputs.push_back(tensor);
  });
  for (const Parameter& parameter : parameters) inputs.push_back(context[parameter]);

  Call::Trace trace;
  // Outputs: y, then the trace's tensors, each once.
  const std::vector<at::Tensor> outputs = differentiable(inputs, [&] {
    std::vector<at::Tensor> found{call->run(x, memory, call->given, trace)};
    each_tensor(trace.routed, &trace.records, [&](at::Tensor& tensor) {
      const size_t index = index_of(found, tensor);
      if (index == found.size()) found.push_back(tensor);
      call->output_of.push_back(index);
    });
    return Computed{std::move(found), inputs, [call](std::vector<at::Tensor> saved, const std::vector<at::Tensor>& grads) {
                      return run_backward(*call, std::move(saved), grads);
                    }};
  });
  size_t slot = 0;
  each_tensor(trace.routed, &trace.records, [&](at::Tensor& tensor) { tensor = outputs[call->output_of.at(slot++)]; });
  if (context.routed)
    for (auto& [name, routed] : trace.routed) context.routed->insert_or_assign(name, std::move(routed));
  if (context.records)
    for (Record& record : trace.records.all()) context.records->add(std::move(record));
  return outputs[0];
}

}  // namespace switchyard
