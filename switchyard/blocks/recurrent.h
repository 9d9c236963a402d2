// What bodies with a running state share (Mamba, delta nets, linear attention): packed rows as padded sequences, the causal
// convolution before the recurrence, and the state that a sequence leaves for its next rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "switchyard/base/options.h"
#include "switchyard/contract/context.h"
#include "switchyard/contract/state.h"

namespace switchyard {

/// The segments of a pass as a batch [S, L, ...] of their longest length, padding behind.
class PaddedSequences {
 public:
  explicit PaddedSequences(const Segments& segments);
  int64_t count() const { return count_; }
  int64_t length() const { return length_; }
  /// rows: [T, ...] → [S, L, ...], zeros in the padding.
  at::Tensor spread(const at::Tensor& rows) const;
  /// [S, L, ...] → [T, ...].
  at::Tensor gather(const at::Tensor& padded) const;
  const at::Tensor& lengths() const { return lengths_; }  ///< [S] int64

  /// What the sequences left under `name`, [S, ...] of `shape` like `like`; zeros for those that left nothing.
  at::Tensor held(const Context& context, const std::string& name, const std::vector<int64_t>& shape, const at::Tensor& like) const;
  /// Leaves `values` [S, ...] for the sequences' next rows; sequences without rows keep what they have.
  void keep(const Context& context, const std::string& name, const at::Tensor& values) const;

 private:
  const Segments& segments_;
  int64_t count_, length_ = 0;
  bool full_ = true;       ///< no padding at all
  at::Tensor place_;       ///< [T] int64: of a row in [S · L]
  at::Tensor lengths_;
};

/// y_t = Σ_k w[:, k] x_{t - K + 1 + k} + bias, channel by channel, over each sequence; rows before its first are what it left
/// under `name` (zeros at its beginning), and its last K - 1 rows are left there. x: [S, L, C]; weight: [C, K]; bias: [C] or
/// undefined.
at::Tensor causal_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const PaddedSequences& sequences,
                              const Context& context, const std::string& name);
/// The activation of such bodies by name: silu in every published model; gelu, gelu-tanh and relu are kin.
at::Tensor curve(const at::Tensor& x, const std::string& name);
template <typename O>
void describe_curve(Fields<O>& f, std::string O::*place, const char* what) {
  f("activation", place, what).choices({"silu", "gelu", "gelu-tanh", "relu"});
}

/// What causal_convolution keeps.
StateSpec convolution_state(const std::string& name, int64_t channels, int64_t width);

}  // namespace switchyard
