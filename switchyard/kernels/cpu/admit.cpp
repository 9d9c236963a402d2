#include "switchyard/kernels/cpu/admit.h"

#include <algorithm>
#include <vector>

namespace switchyard::kernels::cpu {

int64_t admit(const Claims& claims, bool* kept) {
  const auto asks = [&](int64_t p) { return claims.bin[p] >= 0 && !(claims.exempt && claims.exempt[p]); };
  std::vector<int64_t> begin(static_cast<size_t>(claims.bins + 1), 0);  // where a bin's pairs stand, and then the next free place there
  for (int64_t p = 0; p < claims.pairs; ++p) {
    const int64_t bin = claims.bin[p];
    if (bin >= claims.bins || bin < -1) return p;
    if (claims.priority && asks(p) && claims.priority[p] != claims.priority[p]) return p;
    kept[p] = bin >= 0 && !asks(p);
    if (!asks(p)) continue;
    if (!claims.priority) kept[p] = begin[bin]++ < claims.capacity[bin];
    else ++begin[bin + 1];
  }
  if (!claims.priority) return -1;

  for (int64_t b = 0; b < claims.bins; ++b) begin[b + 1] += begin[b];
  std::vector<int64_t> pairs(static_cast<size_t>(begin[claims.bins]));
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (int64_t p = 0; p < claims.pairs; ++p)
    if (asks(p)) pairs[next[claims.bin[p]]++] = p;
  const auto first = [&](int64_t a, int64_t b) {
    return claims.priority[a] > claims.priority[b] || (claims.priority[a] == claims.priority[b] && a < b);
  };
  for (int64_t b = 0; b < claims.bins; ++b) {
    const auto from = pairs.begin() + begin[b], end = pairs.begin() + begin[b + 1];
    const int64_t room = std::clamp<int64_t>(claims.capacity[b], 0, end - from);
    if (from + room != end) std::nth_element(from, from + room, end, first);
    std::for_each(from, from + room, [&](int64_t p) { kept[p] = true; });
  }
  return -1;
}

}  // namespace switchyard::kernels::cpu
