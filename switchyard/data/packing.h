// From tokenised documents to the rows of a batch.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "switchyard/data/batch.h"
#include "switchyard/data/token_files.h"

namespace switchyard {

/// A bijection of 0..n-1 chosen by a key and computed element by element, so that the order of a corpus needs no memory:
/// a Feistel network over the next power of four, walked until it lands below n (Black and Rogaway 2002).
class Shuffle {
 public:
  Shuffle(uint64_t key, int64_t n);
  int64_t operator()(int64_t i) const;

 private:
  uint64_t key_;
  int64_t n_;
  int half_bits_ = 0;
};

/// Where a reader of documents stands: position in the order, and the next token to be fed.
struct DocumentCursor {
  int64_t document = 0;
  int64_t token = 0;
};

/// Rows put together run by run.
struct RunRows {
  std::vector<int64_t> ids, targets;   ///< [rows]
  std::vector<int64_t> begin{0};       ///< [segments + 1]
  std::vector<int64_t> domain;         ///< [segments]
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
  Batch batch() const;
};

/// Appends one run of at most `length` rows, document after document from the cursor on; `order` maps a position to a
/// document. Stops at the last document unless `again`, called there, begins a new pass and returns true.
void append_run(RunRows& rows, const TokenFile& file, int64_t domain, int64_t length,
                const std::function<int64_t(int64_t)>& order, DocumentCursor& cursor, const std::function<bool()>& again);

/// The domain of each of `runs` runs in proportion to `weights`: run counts differ from their expectation by less
/// than one (systematic sampling, start in [0, 1)); ascending.
std::vector<int64_t> draw_domains(const std::vector<double>& weights, int64_t runs, double start);

}  // namespace switchyard
