#include "program/bench.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/base/random.h"
#include "switchyard/kernels/cpu/workers.h"
#include "switchyard/kernels/dispatch.h"

namespace switchyard::program {
namespace {

double seconds_of(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Row row_of(const Contender& contender) {
  const double median = quantile(contender.seconds, 0.5);
  return {.name = contender.name,
          .dtype = contender.dtype,
          .median = median,
          .lowest = quantile(contender.seconds, 0),
          .spread = (quantile(contender.seconds, 0.75) - quantile(contender.seconds, 0.25)) / median,
          .rate = contender.work / median / 1e9,
          .unit = contender.unit};
}

}  // namespace

std::string BenchShape::text() const { return fmt::format("{},{},{},{},{}", rows, width, hidden, experts, k); }

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

std::vector<Row> take_turns(std::vector<Contender>& contenders, int64_t repeats) {
  constexpr int64_t kBefore = 2;  // rounds that do not count: the heap grows to what gradients need, and its new pages are cleared
  for (int64_t round = -kBefore; round < repeats && !interrupted(); ++round) {
    for (Contender& contender : contenders) {
      const double elapsed = seconds_of(contender.run);
      if (round >= 0) contender.seconds.push_back(elapsed);
    }
    reporter().progress("bench", std::max<int64_t>(0, round + 1), repeats, {});
  }
  reporter().finished("bench");
  check(!contenders.back().seconds.empty(), "program.interrupted", "stopped before the first round was done");
  std::vector<Row> rows;
  for (const Contender& contender : contenders) rows.push_back(row_of(contender));
  return rows;
}

void measure_against(Row& row, double ceiling) {
  row.ceiling = ceiling;
  row.share = row.rate / ceiling;
}

Row anchor(const std::string& name) {
  constexpr int64_t side = 768;
  const Streams random(1);
  const at::Tensor a = random.normal({side, side}, {.purpose = "a"}), b = random.normal({side, side}, {.purpose = "b"});
  std::vector<Contender> one{{name, "f32", 2.0 * side * side * side, "GFLOP/s", [&] { (void)at::matmul(a, b); }}};
  for (int i = 0; i < 12; ++i) {
    const double elapsed = seconds_of(one[0].run);
    if (i > 2) one[0].seconds.push_back(elapsed);
  }
  Row row = row_of(one[0]);
  measure_against(row, row.rate);
  return row;
}

namespace {

/// Reads memory as fast as one core does: eight places at once, each a stream that the hardware follows, and the rest.
#pragma GCC push_options
#pragma GCC optimize("O3")
uint64_t sum_of(const char* data, int64_t bytes) {
  using Words = uint64_t __attribute__((vector_size(32), aligned(1), may_alias));
  constexpr int kStreams = 8;
  Words sums[kStreams] = {};
  const int64_t apart = bytes / kStreams / 64 * 64;
  for (int64_t at = 0; at < apart; at += 64)
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const auto* line = reinterpret_cast<const Words*>(data + s * apart + at);
      sums[s] += line[0] + line[1];
    }
  for (int64_t at = kStreams * apart; at + 32 <= bytes; at += 32) sums[0] += *reinterpret_cast<const Words*>(data + at);
  uint64_t all = 0;
  for (const Words& sum : sums) all += sum[0] + sum[1] + sum[2] + sum[3];
  return all;
}
#pragma GCC pop_options

}  // namespace

void read_pages(const std::vector<Pages>& pages) {
  constexpr int64_t kPiece = 1 << 19;
  struct Piece { const char* data; int64_t bytes; };
  std::vector<Piece> pieces;
  for (const Pages& p : pages)
    for (int64_t at = 0; at < p.bytes; at += kPiece)
      pieces.push_back({static_cast<const char*>(p.data) + at, std::min(kPiece, p.bytes - at)});
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> total{0};
  kernels::cpu::call_together(at::get_num_threads(), [&] {  // the threads that the kernels have
    uint64_t sum = 0;
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) sum += sum_of(pieces[i].data, pieces[i].bytes);
    total += sum;
  });
  static std::atomic<uint64_t> kept;  // so that nothing of it can be left out
  kept = total.load();
}

std::string dense_type(const std::string& dtype) {
  return dtype == "f32" || kernels::detected_cpu_level() < kernels::CpuLevel::avx512 ? "f32" : "bf16";
}

at::ScalarType type_named(const std::string& dtype) { return dtype == "f32" ? at::kFloat : at::kBFloat16; }

}  // namespace switchyard::program
