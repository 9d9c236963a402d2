#include "switchyard/inspect/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support.h"

namespace switchyard {
namespace {

using switchyard::testing::expect_error;

Table table(int64_t rows, int64_t columns, std::vector<double> values) {
  Table t(rows, columns);
  t.values = std::move(values);
  return t;
}

TEST(InspectStatistics, SpreadOfCountsByHand) {
  const std::vector<double> c{4, 2, 1, 1};
  EXPECT_NEAR(coefficient_of_variation(c), std::sqrt(1.5) / 2, 1e-12);
  EXPECT_NEAR(coefficient_of_variation(c), 0.612372, 1e-6);
  EXPECT_DOUBLE_EQ(maximum_violation(c), 1);
  EXPECT_DOUBLE_EQ(gini(c), 0.3125);
  EXPECT_DOUBLE_EQ(entropy_ratio(c), 0.875);
  EXPECT_NEAR(divergence_from_uniform(c), 0.125 * std::log(4.0), 1e-12);
}

TEST(InspectStatistics, GiniEqualsItsDefinition) {
  const std::vector<double> c{3, 0, 7.5, 1, 1, 4};
  double differences = 0, total = 0;
  for (const double a : c) {
    total += a;
    for (const double b : c) differences += std::abs(a - b);
  }
  const double n = 6;
  EXPECT_NEAR(gini(c), differences / (2 * n * n * (total / n)), 1e-12);
}

TEST(InspectStatistics, NothingAndOneAndAllAtOne) {
  const std::vector<double> none, zeros{0, 0, 0}, one{5}, collapsed{0, 0, 8, 0};
  for (const auto& v : {none, zeros}) {
    EXPECT_EQ(entropy(v), 0);
    EXPECT_EQ(coefficient_of_variation(v), 0);
    EXPECT_EQ(maximum_violation(v), 0);
    EXPECT_EQ(gini(v), 0);
    EXPECT_EQ(dead_share(v), 0);
    EXPECT_EQ(divergence_from_uniform(v), 0);
  }
  EXPECT_EQ(entropy_ratio(one), 1);
  EXPECT_EQ(maximum_violation(one), 0);
  EXPECT_DOUBLE_EQ(maximum_violation(collapsed), 3);
  EXPECT_DOUBLE_EQ(dead_share(collapsed), 0.75);
  EXPECT_NEAR(divergence_from_uniform(collapsed), std::log(4.0), 1e-12);
}

TEST(InspectStatistics, DeadMeansBelowTheThreshold) {
  const std::vector<double> c{1000, 1000, 1000, 5};
  EXPECT_DOUBLE_EQ(dead_share(c), 0.25);          // 5 < 0.01 · 751.25
  EXPECT_DOUBLE_EQ(dead_share(c, 0.001), 0);
}

TEST(InspectStatistics, MutualInformationByHand) {
  EXPECT_NEAR(mutual_information(table(2, 2, {10, 0, 0, 10})), std::log(2.0), 1e-12);
  EXPECT_NEAR(mutual_information(table(2, 2, {9, 1, 1, 9})), 0.368064, 1e-6);
  EXPECT_EQ(mutual_information(table(2, 2, {5, 5, 5, 5})), 0);
  EXPECT_DOUBLE_EQ(normalised_mutual_information(table(2, 2, {10, 0, 0, 10})), 1);
  EXPECT_EQ(normalised_mutual_information(table(2, 2, {7, 0, 3, 0})), 0);  // a constant column variable
  EXPECT_EQ(mutual_information(Table(3, 3)), 0);
}

TEST(InspectStatistics, InformationIsBoundedAndSymmetric) {
  const Table joint = table(3, 4, {5, 1, 0, 2, 0, 8, 1, 1, 3, 3, 3, 0});
  Table turned(4, 3);
  std::vector<double> row(3), column(4);
  for (int64_t r = 0; r < 3; ++r)
    for (int64_t c = 0; c < 4; ++c) {
      turned.at(c, r) = joint.at(r, c);
      row[static_cast<size_t>(r)] += joint.at(r, c);
      column[static_cast<size_t>(c)] += joint.at(r, c);
    }
  EXPECT_NEAR(mutual_information(joint), mutual_information(turned), 1e-12);
  // I = H(row) + H(column) − H(joint).
  EXPECT_NEAR(mutual_information(joint), entropy(row) + entropy(column) - entropy(joint.values), 1e-12);
  EXPECT_LE(mutual_information(joint), std::min(entropy(row), entropy(column)));
  EXPECT_NEAR(explained_share(joint), mutual_information(joint) / entropy(row), 1e-12);
}

TEST(InspectStatistics, DistancesAndFits) {
  EXPECT_DOUBLE_EQ(total_variation(std::vector<double>{1, 0}, std::vector<double>{0, 7}), 1);
  EXPECT_DOUBLE_EQ(total_variation(std::vector<double>{2, 2}, std::vector<double>{30, 10}), 0.25);
  EXPECT_DOUBLE_EQ(chi_square(std::vector<double>{12, 8}, std::vector<double>{10, 10}), 0.8);
  const std::vector<double> x{0, 1, 2, 3}, y{1, 3, 5, 7}, bent{0, 1, 1, 0};
  EXPECT_DOUBLE_EQ(fit_line(x, y).slope, 2);
  EXPECT_DOUBLE_EQ(fit_line(x, y).intercept, 1);
  EXPECT_NEAR(fit_line(x, y).slope_error, 0, 1e-12);
  EXPECT_DOUBLE_EQ(fit_line(x, bent).slope, 0);
  EXPECT_NEAR(fit_line(x, bent).slope_error, std::sqrt(1.0 / 2 / 5), 1e-12);  // residuals ±½, two degrees of freedom, Σ(x−x̄)² = 5
  EXPECT_EQ(expect_error([] { total_variation(std::vector<double>{1}, std::vector<double>{1, 2}); }).code(), "inspect.shape");
}

}  // namespace
}  // namespace switchyard
