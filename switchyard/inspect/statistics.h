// The one home of the numbers that describe routing: spread of counts, entropy, mutual information.
// Plain functions over plain numbers, used by reports, monitors and tests. Natural logarithms; empty or
// all-zero input gives 0 unless said otherwise.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

/// Row-major counts or masses of two discrete variables.
struct Table {
  int64_t rows = 0, columns = 0;
  std::vector<double> values;  ///< [rows * columns]
  Table() = default;
  Table(int64_t r, int64_t c) : rows(r), columns(c), values(static_cast<size_t>(r * c)) {}
  double& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * columns + c)]; }
  double at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * columns + c)]; }
};

/// −Σ f ln f with f = v / Σ v, in nats.
double entropy(std::span<const double> values);
/// Standard deviation over mean (of the population, not a sample).
double coefficient_of_variation(std::span<const double> values);
/// max / mean − 1: 0 = balanced, N − 1 = everything at one (DeepSeek-V3's MaxVio).
double maximum_violation(std::span<const double> values);
/// Σ|vi − vj| / (2 N² mean).
double gini(std::span<const double> values);
/// entropy / ln N; 1 for a single value.
double entropy_ratio(std::span<const double> values);
/// ln N − entropy: the Kullback-Leibler divergence from uniform.
double divergence_from_uniform(std::span<const double> values);
/// Share of values below `threshold` · mean; 0 when everything is 0.
double dead_share(std::span<const double> values, double threshold = 0.01);

/// I = Σ p ln(p / (p_row p_column)), in nats.
double mutual_information(const Table& joint);
/// I / min(H_row, H_column); 0 when either variable is constant.
double normalised_mutual_information(const Table& joint);
/// I / H_row: how much of the row variable the column variable explains; 0 when the row variable is constant.
double explained_share(const Table& joint);
/// ½ Σ |a − b| of the two normalised vectors. Throws inspect.shape when lengths differ.
double total_variation(std::span<const double> a, std::span<const double> b);

/// χ² of counts against expected ones, over entries whose expectation is positive. Throws inspect.shape.
double chi_square(std::span<const double> counts, std::span<const double> expected);
/// Least squares y ≈ a + slope·x with the slope's standard error (0 for fewer than three points).
struct Line { double slope = 0, intercept = 0, slope_error = 0; };
Line fit_line(std::span<const double> x, std::span<const double> y);

}  // namespace switchyard
