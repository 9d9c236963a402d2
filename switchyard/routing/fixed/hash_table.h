// Balanced hash tables (Roller et al. 2021): ids by falling frequency, each to the lightest bucket.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

enum class HashTable { random, balanced };

/// How often each id occurs: from a text file with one number a line (throws routing.hash_counts naming the line, or when
/// there are not `vocabulary` of them), or 1 / (id + 1) when `file` is empty.
std::vector<double> token_counts(const std::string& file, int64_t vocabulary);

/// [vocabulary] int64 buckets: ids by falling count (ties: in a random order by `key`), each to the bucket with the least
/// count so far (ties: the lower one).
at::Tensor balanced_table(const std::vector<double>& counts, int64_t buckets, uint64_t key);

}  // namespace switchyard
