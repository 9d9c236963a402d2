// What the tables of `switchyard bench` share: contenders that take turns, and rows that say what share of the machine's
// ceiling, measured in the same run, each reached. One source file a group of tables.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace switchyard::program {

struct BenchShape {
  int64_t rows = 1024, width = 512, hidden = 512, experts = 32, k = 4;
  std::string text() const;
};

struct BenchOptions {
  std::string what;
  BenchShape shape;
  std::string dtype;  ///< "f32", "bf16", a block format; empty: those of the table
  int64_t repeats = 15;
};

/// One thing that is timed. run: everything, from cleared results to finished ones.
struct Contender {
  std::string name, dtype;
  double work;  ///< operations or bytes of one run
  std::string unit;  ///< "GFLOP/s", "GB/s"
  std::function<void()> run;
  std::vector<double> seconds = {};
};

/// A row of a table; the keys of --json.
struct Row {
  std::string name, dtype;
  double median = 0, lowest = 0, spread = 0;  ///< seconds; spread = interquartile range over median
  double rate = 0, ceiling = 0;
  std::string unit;
  double share = 0;  ///< rate over ceiling
};

double quantile(std::vector<double> values, double q);

/// Rows of all contenders, without ceilings. They take turns, so that a neighbour's load falls on all alike; the first round
/// warms up. Throws program.interrupted.
std::vector<Row> take_turns(std::vector<Contender>& contenders, int64_t repeats);
/// Sets the ceiling of a row and its share.
void measure_against(Row& row, double ceiling);

/// A dense float32 product of a fixed size, the same in every table: when it moves between the beginning and the end of a
/// table, something else used the machine.
Row anchor(const std::string& name);

/// Reads memory with all threads: what the machine can fetch, of these very pages.
struct Pages { const void* data; int64_t bytes; };
void read_pages(const std::vector<Pages>& pages);

at::ScalarType type_named(const std::string& dtype);
/// The type of the dense product that one of `dtype` is measured against: f32 instead of bf16 where libtorch multiplies that value by
/// value, since a ceiling says what the machine can do.
std::string dense_type(const std::string& dtype);

// The tables.
std::vector<Row> bench_layer(const BenchOptions& options);
std::vector<Row> bench_gemm(const BenchOptions& options);
std::vector<Row> bench_decode(const BenchOptions& options);
std::vector<Row> bench_quant(const BenchOptions& options);

}  // namespace switchyard::program
