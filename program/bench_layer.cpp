// The table of the whole MoE layer, forward and backward, interleaved with a dense SwiGLU of equal FLOPs, with the experts'
// products alone, and with a plain dense product, which is the machine's ceiling.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/silu.h>

#include <functional>

#include "program/bench.h"
#include "switchyard/base/autocast.h"
#include "switchyard/base/error.h"
#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/layer/moe_layer.h"

namespace switchyard::program {
namespace {

void clear(const std::vector<at::Tensor>& leaves) {
  for (const at::Tensor& leaf : leaves) leaf.mutable_grad() = at::Tensor();
}

/// Forward in the products' type, backward outside of autocast's scope, as training does.
void both_ways(bool lowered, const at::Tensor& grad, const std::function<at::Tensor()>& forward) {
  const at::Tensor y = [&] {
    const AutocastScope autocast({.enabled = lowered});
    return forward();
  }();
  y.backward(grad.to(y.scalar_type()));
}

}  // namespace

std::vector<Row> bench_layer(const BenchOptions& o) {
  const auto [T, D, F, E, k] = o.shape;
  const std::string dtype = o.dtype.empty() ? "f32" : o.dtype;
  check(dtype == "f32" || dtype == "bf16", "program.usage", "a layer is measured in f32 or bf16, not {}", dtype);
  const bool lowered = dtype == "bf16";
  const Streams random(1);
  auto normal = [&](at::IntArrayRef shape, const char* what) {
    return random.normal(shape, {.purpose = what}).mul_(0.02).requires_grad_();
  };
  const at::Tensor x = random.normal({T, D}, {.purpose = "x"}).requires_grad_();
  const at::Tensor grad = random.normal({T, D}, {.purpose = "grad"});
  const double flops =
      3.0 * 2 * static_cast<double>(T * D) * static_cast<double>(F * k) * 3;  // three maps; backward costs two forwards

  // The layer as a recipe would build it.
  MoeOptions options;
  options.experts = E;
  options.router.options["k"] = Node(std::to_string(k));
  options.expert.options["hidden"] = Node(std::to_string(F));
  MoeLayer layer(options, D, D);
  Schema schema;
  layer.declare(schema.in("layer"));
  initialise(schema, random);
  std::vector<at::Tensor> layer_leaves{x};
  for (const Parameter& p : schema.all()) layer_leaves.push_back(p.tensor());
  const Facts facts(Segments::single(T));
  const Context context{.facts = facts, .random = random, .phase = Phase::train};

  // The experts alone: pairs already sorted, as evenly spread as they come.
  const int64_t pairs = T * k;
  const at::Tensor sorted = random.normal({pairs, D}, {.purpose = "sorted"}).requires_grad_();
  const at::Tensor sorted_grad = random.normal({pairs, D}, {.purpose = "sorted_grad"});
  const at::Tensor offset = (at::arange(E + 1) * pairs).div_(E, "floor");
  const at::Tensor up = normal({E, F, D}, "up"), gate = normal({E, F, D}, "gate"), down = normal({E, D, F}, "down");

  const int64_t hidden = F * k;
  const at::Tensor wide_up = normal({hidden, D}, "wide_up"), wide_gate = normal({hidden, D}, "wide_gate"),
                   wide_down = normal({D, hidden}, "wide_down");
  const std::string ceiling = dense_type(dtype);
  const at::Tensor a = x.detach().to(type_named(ceiling)), b = wide_up.detach().t().to(type_named(ceiling));

  std::vector<Contender> contenders{
      {"dense_product", ceiling, 2.0 * static_cast<double>(T * D) * static_cast<double>(hidden), "GFLOP/s",
       [&] { (void)at::matmul(a, b); }},
      {"dense_swiglu", ceiling, flops, "GFLOP/s",
       [&] {
         clear({x, wide_up, wide_gate, wide_down});
         both_ways(ceiling == "bf16", grad, [&] { return at::linear(at::silu(at::linear(x, wide_gate)) * at::linear(x, wide_up), wide_down); });
       }},
      {"moe_experts", dtype, flops, "GFLOP/s",
       [&] {
         clear({sorted, up, gate, down});
         both_ways(lowered, sorted_grad, [&] { return kernels::grouped_ffn(sorted, offset, {}, {}, {.up = up, .gate = gate, .down = down}); });
       }},
      {"moe_layer", dtype, flops, "GFLOP/s",
       [&] {
         clear(layer_leaves);
         both_ways(lowered, grad, [&] { return layer.forward(x, context); });
       }},
  };
  std::vector<Row> rows = take_turns(contenders, o.repeats);
  const double product = rows[0].rate, dense = rows[1].rate;
  for (size_t i = 0; i < rows.size(); ++i) measure_against(rows[i], i < 2 ? product : dense);
  // Routing, permutation and combine: what the layer costs beyond its experts in the same round, as a share of the layer.
  std::vector<double> beyond;
  for (size_t i = 0; i < contenders[3].seconds.size(); ++i) beyond.push_back(contenders[3].seconds[i] - contenders[2].seconds[i]);
  const double median = quantile(beyond, 0.5);
  Row rest{.name = "moe_outside_experts", .dtype = dtype, .median = median, .lowest = quantile(beyond, 0),
           .spread = (quantile(beyond, 0.75) - quantile(beyond, 0.25)) / rows[3].median, .rate = median, .unit = "s"};
  measure_against(rest, rows[3].median);
  rows.push_back(rest);
  return rows;
}

}  // namespace switchyard::program
