// switchyard bench: times ratios within one run, so that they mean something on a machine that is not ours alone.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "program/bench.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/kernels/dispatch.h"

namespace switchyard::program {
namespace {

struct Table {
  std::vector<Row> (*rows)(const BenchOptions&);
  BenchShape usual;
  const char *title, *note;
};

const std::map<std::string, Table>& tables() {
  static const std::map<std::string, Table> all{
      {"layer", {bench_layer, {}, "MoE layer, forward and backward",
                 "dense_swiglu is measured against one dense product, the experts and the layer against dense_swiglu (equal FLOPs);\n"
                 "the last row is what the layer spends on routing, permutation and combine.\n"}},
      {"gemm", {bench_gemm, {}, "One linear map an expert over T k rows, D to F",
                "The ceiling is the dense product of equal FLOPs or, when that is lower, what reading the weights once allows.\n"}},
      {"decode", {bench_decode, {1, 2048, 768, 128, 8}, "Experts of T rows that choose k each, without gradients",
                  "Rates are bytes of the experts that were touched; the ceiling is a read test of the same pages.\n"}},
      {"quant", {bench_quant, {512, 2048, 768, 128, 8}, "Experts of T rows that meet weights as they lie packed, without gradients",
                 "The ceiling is a dense bf16 SwiGLU of equal FLOPs (f32 without AVX-512), measured beside each row.\n"}},
  };
  return all;
}

void show(const std::vector<Row>& rows, const BenchOptions& o, bool moved, bool json) {
  const char* path = kernels::name(kernels::cpu_level());
  if (json) {
    for (const Row& row : rows) {
      nlohmann::ordered_json line{{"name", row.name}, {"shape", o.shape.text()}, {"dtype", row.dtype}, {"threads", at::get_num_threads()},
                                  {"path", path}, {"median_s", row.median}, {"min_s", row.lowest}, {"spread", row.spread},
                                  {"rate", row.rate}, {"unit", row.unit}, {"ceiling", row.ceiling}, {"share", row.share}};
      if (moved) line["anchor_moved"] = true;
      print(line.dump() + "\n");
    }
    return;
  }
  const Table& table = tables().at(o.what);
  std::string out = fmt::format("{}: T,D,F,E,k = {}, {} threads, {}\n\n{:<30}{:<6}{:>11}{:>11}{:>9}{:>12}{:>12}{:>9}\n", table.title,
                                o.shape.text(), at::get_num_threads(), path, "", "dtype", "median ms", "min ms", "spread", "rate",
                                "ceiling", "share");
  for (const Row& row : rows) {
    const bool seconds = row.unit == "s";
    out += fmt::format("{:<30}{:<6}{:>11.3f}{:>11.3f}{:>8.0f}%{:>12}{:>12}{:>8.1f}%{}\n", row.name, row.dtype, row.median * 1e3,
                       row.lowest * 1e3, row.spread * 100, seconds ? "" : fmt::format("{:.1f} {}", row.rate, row.unit == "GB/s" ? "GB" : "GF"),
                       seconds ? "" : fmt::format("{:.1f}", row.ceiling), row.share * 100, moved ? " *" : "");
  }
  out += fmt::format("\nGF: GFLOP/s, GB: GB/s. {}", table.note);
  if (moved) out += "* The anchor, a dense product before and after the table, moved by more than 10 %: something else used the machine.\n";
  print(out);
}

BenchShape parse_shape(const std::vector<int64_t>& list, const BenchShape& usual) {
  if (list.empty()) return usual;
  check(list.size() == 5, "program.usage", "--shape takes five numbers T,D,F,E,k; found {}", list.size());
  const BenchShape shape{list[0], list[1], list[2], list[3], list[4]};
  for (const int64_t n : list)
    check(n > 0 && n < int64_t{1} << 31, "program.usage", "--shape {}: every number is at least 1", shape.text());
  check(shape.k <= shape.experts, "program.usage", "--shape {}: k = {} of E = {} experts", shape.text(), shape.k, shape.experts);
  return shape;
}

}  // namespace

Verb bench_verb() {
  return {.name = "bench",
          .summary = "time the MoE layer and its products against the machine's ceiling in the same run",
          .example = "switchyard bench layer --shape 1024,512,512,32,4 --dtype bf16",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            struct Arguments {
              std::string what, dtype;
              std::vector<int64_t> shape;
              int threads = 0;
              int64_t repeats = 15;
              bool json = false;
            };
            auto given = std::make_shared<Arguments>();
            std::vector<std::string> names;
            for (const auto& [name, table] : tables()) names.push_back(name);
            line.option("what", given->what,
                        "layer: forward and backward of a whole MoE layer; gemm: one linear map an expert; decode: few rows; quant: "
                        "many rows with packed weights")
                .required()
                .one_of(names);
            line.option("--shape", given->shape,
                        "T,D,F,E,k: rows, width, hidden width, experts, experts a row (default 1024,512,512,32,4 for layer and gemm, "
                        "1,2048,768,128,8 for decode, 512,2048,768,128,8 for quant)")
                .by_comma();
            line.option("--dtype", given->dtype,
                        "f32, or bf16 (layer: autocast, as in training); gemm, decode and quant: also a block format as Q4_K (default: "
                        "layer f32, others several)");
            line.option("--threads", given->threads, "threads (default: as many as libtorch takes)").positive();
            line.option("--repeats", given->repeats, "rounds that are timed").positive();
            line.flag("--json", given->json, "one JSON object a row");
            return [given] {
              if (given->threads > 0) at::set_num_threads(given->threads);
              const Table& table = tables().at(given->what);
              const BenchOptions options{.what = given->what, .shape = parse_shape(given->shape, table.usual), .dtype = given->dtype,
                                         .repeats = given->repeats};
              std::vector<Row> rows{anchor("anchor_before")};
              for (Row& row : table.rows(options)) rows.push_back(std::move(row));
              rows.push_back(anchor("anchor_after"));
              const bool moved = std::fabs(rows.back().rate / rows.front().rate - 1) > 0.1;
              show(rows, options, moved, given->json);
              return 0;
            };
          }};
}

}  // namespace switchyard::program
