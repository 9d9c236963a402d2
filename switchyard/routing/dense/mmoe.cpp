// Multi-gate mixture of experts (Ma et al. 2018; survey 2.1 and 6): tasks share experts, and each task has a
// softmax gate of its own over all of them, f_k(x) = Σ_i softmax(W_k x)_i f_i(x). Every expert runs once a row
// however many tasks read it.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

#include "switchyard/base/registry.h"
#include "switchyard/routing/gate.h"
#include "switchyard/routing/router.h"

namespace switchyard {
namespace {

/// Which tasks a row is combined for.
enum class TaskOutputs { own, all };

struct MmoeOptions {
  int64_t tasks = 2;
  std::string fact = "domain";
  TaskOutputs outputs = TaskOutputs::own;
  double deviation = 0.02;
  static void describe(Fields<MmoeOptions>& f) {
    f.title("Multi-gate mixture of experts", "A softmax gate for each task over experts that all tasks share.");
    f("tasks", &MmoeOptions::tasks, "number of gates K").range(1, 1 << 16);
    f("fact", &MmoeOptions::fact, "the fact that says which task a row belongs to, 0 to K-1 (outputs: own)");
    f("outputs", &MmoeOptions::outputs, "each row's own task alone, or every task: K outputs a row, row by row")
        .choices({"own", "all"});
    f("deviation", &MmoeOptions::deviation, "standard deviation of the initial weights").range(0, 10);
  }
};

class Mmoe : public Router {
 public:
  explicit Mmoe(MmoeOptions options) : options_(std::move(options)) {}

  /// "weight" [K, E, D].
  void declare(const Schema& schema, const RouterSize& size) override {
    experts_ = size.experts;
    weight_ = schema.add("weight", {options_.tasks, size.experts, size.width}, Role::router, Init::normal(options_.deviation), 1);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    const int64_t rows = input.x.size(0), tasks = options_.tasks;
    const at::Tensor all = router_logits(input.x, context[weight_].flatten(0, 1));  // [T, K·E]
    if (options_.outputs == TaskOutputs::all) return every_task(all.view({rows * tasks, experts_}), rows, context);
    const at::Tensor task = task_of_row(context).to(all.device());
    const at::Tensor own = at::arange(rows, task.options()) * tasks + task;
    Gate gate = softmax_gate(all.view({rows * tasks, experts_}).index_select(0, own), context);
    Selection selection = select_all(gate.probabilities);
    selection.gates.push_back(std::move(gate));
    return selection;
  }

 private:
  static Gate softmax_gate(const at::Tensor& raw, const Context& context) {
    refuse_nan(raw, context);
    const at::Tensor logits = mask_experts(raw, context);
    return {.logits = logits, .scores = logits, .probabilities = logits.softmax(-1), .noise_std = {}};
  }

  /// logits: [T·K, E], row-major. Output t·K + k sums the E pairs of row t by gate k.
  Selection every_task(const at::Tensor& logits, int64_t rows, const Context& context) const {
    const int64_t tasks = options_.tasks, outputs = rows * tasks;
    const Gate every = softmax_gate(logits, context);
    Selection selection = select_pairs(at::arange(experts_, at::kLong).to(logits.device()).expand({rows, experts_}),
                                       at::ones({rows, experts_}, logits.options().requires_grad(false)), experts_);
    const auto index = selection.expert.options();
    selection.outputs = outputs;
    selection.out = at::arange(outputs, index).repeat_interleave(experts_);
    const at::Tensor first = at::arange(rows, index).repeat_interleave(tasks) * experts_;  // pair of expert 0, an output
    selection.source = (first.unsqueeze(1) + at::arange(experts_, index)).reshape({-1});
    selection.out_weight = every.probabilities.reshape({-1});
    const auto of_task = [&](const at::Tensor& t, int64_t k) { return t.view({rows, tasks, experts_}).select(1, k); };
    for (int64_t k = 0; k < tasks; ++k)
      selection.gates.push_back({.logits = of_task(every.logits, k), .scores = of_task(every.scores, k),
                                 .probabilities = of_task(every.probabilities, k), .noise_std = {}});
    return selection;
  }

  at::Tensor task_of_row(const Context& context) const {
    const at::Tensor task = context.facts.row(options_.fact, context.place.site + ": mmoe");
    if (task.numel() == 0) return task.to(at::kLong);
    const int64_t least = task.min().item<int64_t>(), most = task.max().item<int64_t>();
    check(least >= 0 && most < options_.tasks, "routing.task", "{}: the fact \"{}\" goes from {} to {}, but there are gates for "
          "0 to {}; set tasks: {}", context.place.site, options_.fact, least, most, options_.tasks - 1, most + 1);
    return task.to(at::kLong);
  }

  MmoeOptions options_;
  int64_t experts_ = 0;
  Parameter weight_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(mmoe) {
  using namespace switchyard;
  registry.add<Router, Mmoe, MmoeOptions>(
      {.slug = "mmoe", .name = "Multi-gate mixture of experts", .paper = "Ma et al., Modeling task relationships in multi-task learning",
       .year = 2018, .section = "2.1", .room = "routing/dense", .coupling = "none",
       .line = "a gate for each task over experts that all tasks share", .recipe = "recipes/methods/mmoe.yaml"});
}
