#include "switchyard/inspect/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

double sum(std::span<const double> values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double mean(std::span<const double> values) { return values.empty() ? 0 : sum(values) / static_cast<double>(values.size()); }

/// p ln p with its limit 0 at 0.
double p_log_p(double p) { return p > 0 ? p * std::log(p) : 0; }

struct Margins { std::vector<double> row, column; double total = 0; };

Margins margins(const Table& joint) {
  Margins m{std::vector<double>(static_cast<size_t>(joint.rows)), std::vector<double>(static_cast<size_t>(joint.columns)), 0};
  for (int64_t r = 0; r < joint.rows; ++r)
    for (int64_t c = 0; c < joint.columns; ++c) {
      m.row[static_cast<size_t>(r)] += joint.at(r, c);
      m.column[static_cast<size_t>(c)] += joint.at(r, c);
    }
  m.total = sum(m.row);
  return m;
}

}  // namespace

double entropy(std::span<const double> values) {
  const double total = sum(values);
  if (total <= 0) return 0;
  double result = 0;
  for (const double v : values) result -= p_log_p(v / total);
  return std::max(0.0, result);
}

double coefficient_of_variation(std::span<const double> values) {
  const double m = mean(values);
  if (m == 0) return 0;
  double squares = 0;
  for (const double v : values) squares += (v - m) * (v - m);
  return std::sqrt(squares / static_cast<double>(values.size())) / m;
}

double maximum_violation(std::span<const double> values) {
  const double m = mean(values);
  return m == 0 ? 0 : *std::max_element(values.begin(), values.end()) / m - 1;
}

double gini(std::span<const double> values) {
  const double m = mean(values);
  if (m == 0) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  // Σ_ij |vi − vj| = 2 Σ_i (2i − N + 1) v_(i) with i from 0.
  const double n = static_cast<double>(sorted.size());
  double differences = 0;
  for (size_t i = 0; i < sorted.size(); ++i) differences += 2 * (2 * static_cast<double>(i) - n + 1) * sorted[i];
  return differences / (2 * n * n * m);
}

double entropy_ratio(std::span<const double> values) {
  return values.size() < 2 ? 1 : entropy(values) / std::log(static_cast<double>(values.size()));
}

double divergence_from_uniform(std::span<const double> values) {
  return sum(values) <= 0 ? 0 : std::max(0.0, std::log(static_cast<double>(values.size())) - entropy(values));
}

double dead_share(std::span<const double> values, double threshold) {
  const double m = mean(values);
  if (m == 0) return 0;
  const auto dead = std::count_if(values.begin(), values.end(), [&](double v) { return v < threshold * m; });
  return static_cast<double>(dead) / static_cast<double>(values.size());
}

double mutual_information(const Table& joint) {
  const Margins m = margins(joint);
  if (m.total <= 0) return 0;
  double result = 0;
  for (int64_t r = 0; r < joint.rows; ++r)
    for (int64_t c = 0; c < joint.columns; ++c) {
      const double v = joint.at(r, c);
      if (v > 0) result += v / m.total * std::log(v * m.total / (m.row[static_cast<size_t>(r)] * m.column[static_cast<size_t>(c)]));
    }
  return std::max(0.0, result);
}

double normalised_mutual_information(const Table& joint) {
  const Margins m = margins(joint);
  const double smaller = std::min(entropy(m.row), entropy(m.column));
  return smaller <= 1e-12 ? 0 : std::min(1.0, mutual_information(joint) / smaller);
}

double explained_share(const Table& joint) {
  const double of_row = entropy(margins(joint).row);
  return of_row <= 1e-12 ? 0 : std::min(1.0, mutual_information(joint) / of_row);
}

double total_variation(std::span<const double> a, std::span<const double> b) {
  check(a.size() == b.size(), "inspect.shape", "two distributions over {} and {} values cannot be compared", a.size(), b.size());
  const double sum_a = sum(a), sum_b = sum(b);
  if (sum_a <= 0 || sum_b <= 0) return 0;
  double result = 0;
  for (size_t i = 0; i < a.size(); ++i) result += std::abs(a[i] / sum_a - b[i] / sum_b);
  return result / 2;
}

double chi_square(std::span<const double> counts, std::span<const double> expected) {
  check(counts.size() == expected.size(), "inspect.shape", "{} counts against {} expectations", counts.size(), expected.size());
  double result = 0;
  for (size_t i = 0; i < counts.size(); ++i)
    if (expected[i] > 0) result += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
  return result;
}

Line fit_line(std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size(), "inspect.shape", "{} abscissae and {} ordinates", x.size(), y.size());
  const double mx = mean(x), my = mean(y);
  double sxx = 0, sxy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sxx += (x[i] - mx) * (x[i] - mx);
    sxy += (x[i] - mx) * (y[i] - my);
  }
  Line line;
  line.slope = sxx > 0 ? sxy / sxx : 0;
  line.intercept = my - line.slope * mx;
  if (x.size() > 2 && sxx > 0) {
    double residual = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double e = y[i] - line.intercept - line.slope * x[i];
      residual += e * e;
    }
    line.slope_error = std::sqrt(residual / static_cast<double>(x.size() - 2) / sxx);
  }
  return line;
}

}  // namespace switchyard
