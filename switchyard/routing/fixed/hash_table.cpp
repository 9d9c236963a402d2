#include "switchyard/routing/fixed/hash_table.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <queue>
#include <string_view>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/random.h"

namespace switchyard {

std::vector<double> token_counts(const std::string& file, int64_t vocabulary) {
  std::vector<double> counts;
  counts.reserve(static_cast<size_t>(vocabulary));
  if (file.empty()) {
    for (int64_t id = 0; id < vocabulary; ++id) counts.push_back(1.0 / static_cast<double>(id + 1));
    return counts;
  }
  const std::string text = read_file(file, uint64_t{1} << 30);
  std::string_view rest = text;
  for (int64_t line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    double value = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    check(error == std::errc() && stop == word.data() + word.size() && std::isfinite(value) && value >= 0, "routing.hash_counts",
          "{}:{}: \"{}\" is no count of a token; write one number a line", file, line, word.substr(0, 40));
    counts.push_back(value);
  }
  check(static_cast<int64_t>(counts.size()) == vocabulary, "routing.hash_counts", "{} has {} counts, but the vocabulary has {} tokens",
        file, counts.size(), vocabulary);
  return counts;
}

at::Tensor balanced_table(const std::vector<double>& counts, int64_t buckets, uint64_t key) {
  const auto size = static_cast<int64_t>(counts.size());
  const at::Tensor shuffled = Streams(key).permutation(size, {.purpose = "hash-layer.ties"});
  std::vector<int64_t> order(shuffled.const_data_ptr<int64_t>(), shuffled.const_data_ptr<int64_t>() + size);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return counts[a] > counts[b]; });
  std::priority_queue<std::pair<double, int64_t>, std::vector<std::pair<double, int64_t>>, std::greater<>> lightest;
  for (int64_t bucket = 0; bucket < buckets; ++bucket) lightest.emplace(0.0, bucket);
  at::Tensor table = at::empty({size}, at::kLong);
  int64_t* bucket_of = table.mutable_data_ptr<int64_t>();
  for (const int64_t id : order) {
    const auto [load, bucket] = lightest.top();
    lightest.pop();
    bucket_of[id] = bucket;
    lightest.emplace(load + counts[id], bucket);
  }
  return table;
}

}  // namespace switchyard
