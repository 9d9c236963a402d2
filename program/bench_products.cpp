// The tables of the experts' products: gemm (one linear map an expert, with its gradients), decode (few rows: bound by the bytes
// of the experts that are touched) and quant (many rows meet packed weights).
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "program/bench.h"
#include "switchyard/base/error.h"
#include "switchyard/base/random.h"
#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/grouped_packed.h"
#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::program {
namespace {

bool plain(const std::string& dtype) { return dtype == "f32" || dtype == "bf16"; }

/// A stack [E, M, K] of random weights in a type or a block format. Packed experts are copies of one another: the kernels do
/// not mind, and quantising a billion weights would take minutes. They are as a model has them that has written two tokens: what is read
/// again and again is kept in the order of the products (SWITCHYARD_REPACK).
struct Weights {
  at::Tensor tensor;
  std::shared_ptr<const BlockTensor> packed;

  Weights(const std::string& dtype, std::vector<int64_t> shape, const Streams& random, const std::string& purpose) {
    if (plain(dtype)) {
      tensor = random.normal(shape, {.purpose = purpose}, type_named(dtype)).mul_(0.02);
      return;
    }
    const BlockCodec* codec = block_codec_named(dtype);
    check(codec && codec->quantise, "program.usage", "--dtype {} is no type to be measured; f32, bf16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K and MXFP4 are", dtype);
    check(shape[2] % codec->length == 0, "program.usage", "rows of {} values are no whole number of {} blocks of {}", shape[2], dtype, codec->length);
    const at::Tensor one = quantise_blocks(*codec, random.normal({shape[1], shape[2]}, {.purpose = purpose}).mul_(0.02));
    auto all = std::make_shared<at::Tensor>(one.unsqueeze(0).repeat({shape[0], 1, 1}));
    packed = std::make_shared<BlockTensor>(*codec, shape, all->const_data_ptr<uint8_t>(), all);
    const at::Tensor token = at::zeros({shape[0], shape[2]}, at::kBFloat16), each_expert = at::arange(shape[0] + 1);
    for (int i = 0; i < 2; ++i) (void)kernels::grouped_linear_packed(token, packed, each_expert);
  }
  int64_t expert_bytes() const {
    return packed ? packed->shape()[1] * packed->row_bytes() : tensor.size(1) * tensor.size(2) * tensor.element_size();
  }
  Pages pages(int64_t expert) const {
    if (packed) return {packed->row(expert * packed->shape()[1]), expert_bytes()};
    return {static_cast<const char*>(tensor.const_data_ptr()) + expert * expert_bytes(), expert_bytes()};
  }
};

kernels::FeedForwardWeights network_of(const Weights& up, const Weights& gate, const Weights& down) {
  return {.up = up.tensor, .gate = gate.tensor, .down = down.tensor, .packed_up = up.packed, .packed_gate = gate.packed, .packed_down = down.packed};
}

/// A choice of k of E experts for each of T rows, sorted by expert, as a router would have made it.
struct Choice {
  at::Tensor row, offset;  ///< [T·k], [E+1]
  std::vector<int64_t> touched;

  Choice(const BenchShape& s, const Streams& random, int64_t number) {
    std::vector<std::vector<int64_t>> of(static_cast<size_t>(s.experts));
    const at::Tensor scores = random.uniform({s.rows, s.experts}, {.purpose = "choice" + std::to_string(number)});
    const at::Tensor best = std::get<1>(scores.topk(s.k, 1));
    for (int64_t t = 0; t < s.rows; ++t)
      for (int64_t i = 0; i < s.k; ++i) of[static_cast<size_t>(best[t][i].item<int64_t>())].push_back(t);
    row = at::empty({s.rows * s.k}, at::kLong);
    offset = at::zeros({s.experts + 1}, at::kLong);
    int64_t* r = row.mutable_data_ptr<int64_t>();
    int64_t* o = offset.mutable_data_ptr<int64_t>();
    for (int64_t e = 0; e < s.experts; ++e) {
      const auto& list = of[static_cast<size_t>(e)];
      r = std::copy(list.begin(), list.end(), r);
      o[e + 1] = o[e] + static_cast<int64_t>(list.size());
      if (!list.empty()) touched.push_back(e);
    }
  }
};

std::vector<std::string> dtypes_of(const BenchOptions& o, std::vector<std::string> usual) {
  if (!o.dtype.empty()) usual = {o.dtype};
  return usual;
}

}  // namespace

std::vector<Row> bench_gemm(const BenchOptions& o) {
  const auto [T, D, F, E, k] = o.shape;
  const Streams random(1);
  const int64_t pairs = T * k;
  const double flops = 2.0 * static_cast<double>(pairs * D) * static_cast<double>(F);
  const at::Tensor offset = (at::arange(E + 1) * pairs).div_(E, "floor");
  std::vector<Row> table;
  for (const std::string& dtype : dtypes_of(o, {"f32", "bf16"})) {
    const at::ScalarType type = type_named(dtype);
    const std::string ceiling = dense_type(dtype);
    const at::Tensor x = random.normal({pairs, D}, {.purpose = "x"}, type), dense_x = x.to(type_named(ceiling));
    const at::Tensor dense = random.normal({F, D}, {.purpose = "dense"}, type_named(ceiling));
    const at::Tensor grad = random.normal({pairs, F}, {.purpose = "grad"}, type);
    const Weights w(dtype, {E, F, D}, random, "w");
    const at::Tensor ends = offset.slice(0, 1).to(at::kInt);
    const at::Tensor leaf_x = x.detach().clone().requires_grad_(), leaf_w = w.packed ? at::Tensor() : w.tensor.detach().clone().requires_grad_();
    std::vector<Pages> pages;
    for (int64_t e = 0; e < E; ++e) pages.push_back(w.pages(e));
    const double bytes = static_cast<double>(w.expert_bytes() * E);

    std::vector<Contender> contenders{
        {"dense_product", ceiling, flops, "GFLOP/s", [&] { (void)at::matmul(dense_x, dense.t()); }},
        {"read_test", dtype, bytes, "GB/s", [&] { read_pages(pages); }},
        {"grouped_linear", dtype, flops, "GFLOP/s",
         [&] {
           const at::NoGradGuard guard;
           (void)(w.packed ? kernels::grouped_linear_packed(x, w.packed, offset) : kernels::grouped_linear(x, w.tensor, offset));
         }},
    };
    if (!w.packed) {
      // Where libtorch's bf16 products are slow, only small tables have the time for them.
      constexpr double kFewFlops = 2e10;
      if (ceiling == dtype || flops < kFewFlops) contenders.push_back({"libtorch_grouped_mm", dtype, flops, "GFLOP/s", [&] {
                              const at::NoGradGuard guard;
                              (void)at::_grouped_mm(x, w.tensor.transpose(1, 2), ends);
                            }});
      contenders.push_back({"grouped_linear_with_gradients", dtype, 3 * flops, "GFLOP/s", [&] {
                              leaf_x.mutable_grad() = leaf_w.mutable_grad() = at::Tensor();
                              kernels::grouped_linear(leaf_x, leaf_w, offset).backward(grad);
                            }});
    }
    std::vector<Row> rows = take_turns(contenders, o.repeats);
    // What bounds a product with few rows an expert is reading the weights.
    const double dense_rate = rows[0].rate, bound = std::min(dense_rate, flops / (bytes / rows[1].rate));
    for (Row& row : rows) measure_against(row, row.unit == "GB/s" ? row.rate : row.name == "dense_product" ? dense_rate : bound);
    table.insert(table.end(), rows.begin(), rows.end());
  }
  return table;
}

std::vector<Row> bench_decode(const BenchOptions& o) {
  const auto [T, D, F, E, k] = o.shape;
  const Streams random(1);
  constexpr double kTouched = 256e6;  // layers enough that no cache holds what is read
  constexpr int64_t kMost = int64_t{3} << 29;
  std::vector<Row> table;
  for (const std::string& dtype : dtypes_of(o, {"bf16", "f32", "Q8_0", "Q4_K", "Q6_K", "MXFP4"})) {
    struct Layer { Weights up, gate, down; kernels::FeedForwardWeights network; Choice choice; at::Tensor weight; };
    std::vector<Layer> layers;
    std::vector<Pages> pages;
    double bytes = 0;
    for (int64_t held = 0; layers.empty() || (bytes < kTouched && held < kMost);) {
      Weights up(dtype, {E, F, D}, random, "up"), gate(dtype, {E, F, D}, random, "gate"), down(dtype, {E, D, F}, random, "down");
      held += E * (2 * up.expert_bytes() + down.expert_bytes());
      const auto number = static_cast<int64_t>(layers.size());
      const kernels::FeedForwardWeights network = network_of(up, gate, down);
      layers.push_back({std::move(up), std::move(gate), std::move(down), network, Choice(o.shape, random, number),
                        random.uniform({T * k}, {.purpose = "weight"})});
      const Layer& layer = layers.back();
      for (const Weights* w : {&layer.gate, &layer.up, &layer.down})
        for (const int64_t e : layer.choice.touched) {
          pages.push_back(w->pages(e));
          bytes += static_cast<double>(w->expert_bytes());
        }
    }
    const auto run = [&](const at::Tensor& x) {
      const at::NoGradGuard guard;
      for (const Layer& layer : layers) (void)kernels::grouped_ffn(x, layer.choice.offset, layer.choice.row, layer.weight, layer.network);
    };
    const at::Tensor wide = random.normal({T, D}, {.purpose = "x"}), lowered = wide.to(at::kBFloat16);
    std::vector<Contender> contenders{{"read_test", dtype, bytes, "GB/s", [&] { read_pages(pages); }}};
    if (dtype != "f32") contenders.push_back({"decode_bf16_rows", dtype, bytes, "GB/s", [&] { run(lowered); }});
    if (dtype != "bf16") contenders.push_back({"decode_f32_rows", dtype, bytes, "GB/s", [&] { run(wide); }});
    std::vector<Row> rows = take_turns(contenders, o.repeats);
    for (Row& row : rows) measure_against(row, rows[0].rate);
    table.insert(table.end(), rows.begin(), rows.end());
  }
  return table;
}

std::vector<Row> bench_quant(const BenchOptions& o) {
  const auto [T, D, F, E, k] = o.shape;
  const Streams random(1);
  const double flops = 3 * 2.0 * static_cast<double>(T * D) * static_cast<double>(F * k);
  const std::string ceiling = dense_type("bf16");
  const at::ScalarType dense = type_named(ceiling);
  const at::Tensor x = random.normal({T, D}, {.purpose = "x"}, at::kBFloat16), dense_x = x.to(dense);
  const at::Tensor up = random.normal({F * k, D}, {.purpose = "up"}, dense), gate = random.normal({F * k, D}, {.purpose = "gate"}, dense),
                   down = random.normal({D, F * k}, {.purpose = "down"}, dense);
  const Choice choice(o.shape, random, 0);
  const at::Tensor weight = random.uniform({T * k}, {.purpose = "weight"});
  std::vector<Row> table;
  for (const std::string& dtype : dtypes_of(o, {"bf16", "Q8_0", "Q4_K", "Q6_K", "MXFP4"})) {
    const Weights u(dtype, {E, F, D}, random, "u"), g(dtype, {E, F, D}, random, "g"), d(dtype, {E, D, F}, random, "d");
    const kernels::FeedForwardWeights network = network_of(u, g, d);
    const at::Tensor rows_in = dtype == "f32" ? x.to(at::kFloat) : x;
    const at::NoGradGuard guard;
    std::vector<Contender> contenders{
        {"dense_swiglu", ceiling, flops, "GFLOP/s", [&] { (void)at::linear(at::silu(at::linear(dense_x, gate)) * at::linear(dense_x, up), down); }},
        {"prefill", dtype, flops, "GFLOP/s", [&] { (void)kernels::grouped_ffn(rows_in, choice.offset, choice.row, weight, network); }}};
    std::vector<Row> rows = take_turns(contenders, o.repeats);
    for (Row& row : rows) measure_against(row, rows[0].rate);
    if (!table.empty()) rows[0].name += "_again";
    table.insert(table.end(), rows.begin(), rows.end());
  }
  return table;
}

}  // namespace switchyard::program
