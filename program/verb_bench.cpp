// switchyard bench: times ratios within one run, so that they mean something on a machine that is not ours alone.
// layer: the MoE layer, forward and backward, interleaved with a dense SwiGLU of equal FLOPs, with the experts'
// products alone, and with a plain dense product, which is the machine's ceiling.
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/silu.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/kernels/dispatch.h"
#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/layer/moe_layer.h"

namespace switchyard::program {

namespace {

struct BenchShape {
  int64_t rows = 1024, width = 512, hidden = 512, experts = 32, k = 4;
  std::string text() const { return fmt::format("{},{},{},{},{}", rows, width, hidden, experts, k); }
};

struct BenchOptions {
  BenchShape shape;
  at::ScalarType dtype = at::kFloat;
  int64_t repeats = 15;
  bool json = false;
};

/// One thing that is timed. run: everything, from cleared gradients to finished ones.
struct Contender {
  std::string name;
  double flops;  ///< 0 = none to count
  std::function<void()> run;
  std::vector<double> seconds;
};

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

/// A row of the table; the keys of --json.
struct Row {
  std::string name;
  double median = 0, lowest = 0, spread = 0;  ///< seconds; spread = interquartile range over median
  double rate = 0, ceiling = 0;
  std::string unit = "GFLOP/s";
  double share = 0;  ///< rate over ceiling
};

Row row_of(const Contender& contender) {
  const double median = quantile(contender.seconds, 0.5);
  return {.name = contender.name,
          .median = median,
          .lowest = quantile(contender.seconds, 0),
          .spread = (quantile(contender.seconds, 0.75) - quantile(contender.seconds, 0.25)) / median,
          .rate = contender.flops / median / 1e9};
}

/// Takes turns, so that a neighbour's load falls on all alike; the first round warms up.
void take_turns(std::vector<Contender>& contenders, int64_t repeats) {
  for (int64_t round = -1; round < repeats && !interrupted(); ++round) {
    for (Contender& contender : contenders) {
      const auto begin = std::chrono::steady_clock::now();
      contender.run();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      if (round >= 0) contender.seconds.push_back(elapsed.count());
    }
    reporter().progress("bench", round + 1, repeats, {});
  }
  reporter().finished("bench");
  check(!contenders.front().seconds.empty(), "program.interrupted", "stopped before the first round was done");
}

/// Autocast to bf16 while it lives, as training in that precision does.
class Autocast {
 public:
  explicit Autocast(bool on) : before_(at::autocast::is_autocast_enabled(at::kCPU)) {
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, on);
  }
  ~Autocast() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, before_);
  }

 private:
  bool before_;
};

void clear(const std::vector<at::Tensor>& leaves) {
  for (const at::Tensor& leaf : leaves) leaf.mutable_grad() = at::Tensor();
}

void backward(const at::Tensor& y, const at::Tensor& grad) { y.backward(grad.to(y.scalar_type())); }

std::vector<Row> bench_layer(const BenchOptions& o) {
  const auto [T, D, F, E, k] = o.shape;
  const bool lowered = o.dtype == at::kBFloat16;
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
  const at::Tensor a = x.detach().to(o.dtype), b = wide_up.detach().t().to(o.dtype);

  std::vector<Contender> contenders{
      {"dense_product",
       2.0 * static_cast<double>(T * D) * static_cast<double>(hidden),
       [&] { (void)at::matmul(a, b); },
       {}},
      {"dense_swiglu",
       flops,
       [&] {
         clear({x, wide_up, wide_gate, wide_down});
         const Autocast autocast(lowered);
         const at::Tensor h = at::silu(at::linear(x, wide_gate)) * at::linear(x, wide_up);
         backward(at::linear(h, wide_down), grad);
       },
       {}},
      {"moe_experts",
       flops,
       [&] {
         clear({sorted, up, gate, down});
         const Autocast autocast(lowered);
         const kernels::FeedForwardWeights weights{.up = up, .gate = gate, .down = down};
         backward(kernels::grouped_ffn(sorted, offset, {}, {}, weights), sorted_grad);
       },
       {}},
      {"moe_layer",
       flops,
       [&] {
         clear(layer_leaves);
         const Autocast autocast(lowered);
         backward(layer.forward(x, context), grad);
       },
       {}},
  };
  take_turns(contenders, o.repeats);

  std::vector<Row> rows;
  for (const Contender& contender : contenders) rows.push_back(row_of(contender));
  const double product = rows[0].rate;
  rows[0].ceiling = product;
  rows[1].ceiling = product;
  rows[2].ceiling = rows[3].ceiling = rows[1].rate;
  for (Row& row : rows) row.share = row.rate / row.ceiling;
  // Routing, permutation and combine: what the layer costs beyond its experts, as a share of the layer.
  Row rest{.name = "moe_outside_experts",
           .median = rows[3].median - rows[2].median,
           .lowest = rows[3].lowest - rows[2].lowest,
           .spread = rows[3].spread,
           .unit = "s"};
  rest.rate = rest.median;
  rest.ceiling = rows[3].median;
  rest.share = rest.median / rows[3].median;
  rows.push_back(rest);
  return rows;
}

void show(const std::vector<Row>& rows, const BenchOptions& o) {
  const std::string dtype = o.dtype == at::kBFloat16 ? "bf16" : "f32";
  const char* path = kernels::name(kernels::cpu_level());
  if (o.json) {
    for (const Row& row : rows)
      print(nlohmann::ordered_json{{"name", row.name},
                                   {"shape", o.shape.text()},
                                   {"dtype", dtype},
                                   {"threads", at::get_num_threads()},
                                   {"path", path},
                                   {"median_s", row.median},
                                   {"min_s", row.lowest},
                                   {"spread", row.spread},
                                   {"rate", row.rate},
                                   {"unit", row.unit},
                                   {"ceiling", row.ceiling},
                                   {"share", row.share}}
                .dump() +
            "\n");
    return;
  }
  std::string out = fmt::format(
      "MoE layer, forward and backward: T,D,F,E,k = {}, {}, {} threads, "
      "{}\n\n{:<22}{:>11}{:>11}{:>9}{:>12}{:>12}{:>8}\n",
      o.shape.text(), dtype, at::get_num_threads(), path, "", "median ms", "min ms", "spread", "rate", "ceiling",
      "share");
  for (const Row& row : rows) {
    const bool flops = row.unit == "GFLOP/s";
    out += fmt::format("{:<22}{:>11.3f}{:>11.3f}{:>8.0f}%{:>12}{:>12}{:>7.1f}%\n", row.name, row.median * 1e3,
                       row.lowest * 1e3, row.spread * 100, flops ? fmt::format("{:.1f}", row.rate) : "",
                       flops ? fmt::format("{:.1f}", row.ceiling) : "", row.share * 100);
  }
  out +=
      "\nRates in GFLOP/s. dense_swiglu is measured against one dense product, the experts and the layer against "
      "dense_swiglu\n"
      "(equal FLOPs); the last row is what the layer spends on routing, permutation and combine.\n";
  print(out);
}

BenchShape parse_shape(const std::vector<int64_t>& list) {
  if (list.empty()) return {};
  check(list.size() == 5, "program.usage", "--shape takes five numbers T,D,F,E,k; found {}", list.size());
  const BenchShape shape{list[0], list[1], list[2], list[3], list[4]};
  for (const int64_t n : list)
    check(n > 0 && n < int64_t{1} << 31, "program.usage", "--shape {}: every number is at least 1", shape.text());
  check(shape.k <= shape.experts, "program.usage", "--shape {}: k = {} of E = {} experts", shape.text(), shape.k,
        shape.experts);
  return shape;
}

}  // namespace

Verb bench_verb() {
  return {.name = "bench",
          .summary = "time the MoE layer against dense products in the same run",
          .example = "switchyard bench layer --shape 1024,512,512,32,4 --dtype bf16",
          .computes = true,
          .setup = [](CLI::App& app) -> std::function<int()> {
            struct Arguments {
              std::string what, dtype = "f32";
              std::vector<int64_t> shape;
              int threads = 0;
              int64_t repeats = 15;
              bool json = false;
            };
            auto given = std::make_shared<Arguments>();
            app.add_option("what", given->what, "layer: forward and backward of a whole MoE layer")
                ->required()
                ->check(CLI::IsMember({"layer"}));
            app.add_option("--shape", given->shape,
                           "T,D,F,E,k: rows, width, hidden width, experts, experts a row (default 1024,512,512,32,4)")
                ->delimiter(',');
            app.add_option("--dtype", given->dtype, "f32, or bf16 (autocast, as in training)")
                ->check(CLI::IsMember({"f32", "bf16"}));
            app.add_option("--threads", given->threads, "threads (default: as many as libtorch takes)")
                ->check(CLI::PositiveNumber);
            app.add_option("--repeats", given->repeats, "rounds that are timed")->check(CLI::PositiveNumber);
            app.add_flag("--json", given->json, "one JSON object a row");
            return [given] {
              if (given->threads > 0) at::set_num_threads(given->threads);
              const BenchOptions options{.shape = parse_shape(given->shape),
                                         .dtype = given->dtype == "bf16" ? at::kBFloat16 : at::kFloat,
                                         .repeats = given->repeats,
                                         .json = given->json};
              show(bench_layer(options), options);
              return 0;
            };
          }};
}

}  // namespace switchyard::program
