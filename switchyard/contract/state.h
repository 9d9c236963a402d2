// Cached state of running sequences. Parts declare what they keep; the store holds it, and nobody
// else knows whether it is contiguous or paged.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

struct StateSpec {
  enum class Kind {
    per_token,     ///< rows appended a token: pageable, can be cut back
    per_sequence,  ///< one fixed tensor a sequence: copied on fork, cannot be cut back
  };
  std::string name;
  Kind kind = Kind::per_token;
  std::vector<int64_t> shape;  ///< of one row, or of the fixed tensor
};

class StateStore {
 public:
  virtual ~StateStore() = default;
  /// Appends rows [n, ...] to the sequence's rows under `name`; returns all of them [past + n, ...].
  /// The view is valid until the next append under that name.
  virtual at::Tensor append(std::string_view name, int64_t sequence, const at::Tensor& rows) = 0;
  /// Rows held under `name`.
  virtual int64_t length(std::string_view name, int64_t sequence) const = 0;
  /// The fixed tensor under `name`; undefined before the first put.
  virtual at::Tensor get(std::string_view name, int64_t sequence) const = 0;
  virtual void put(std::string_view name, int64_t sequence, at::Tensor value) = 0;
  virtual void forget(int64_t sequence) = 0;
};

/// Grows by doubling; each sequence's rows lie together.
class ContiguousState : public StateStore {
 public:
  at::Tensor append(std::string_view name, int64_t sequence, const at::Tensor& rows) override;
  int64_t length(std::string_view name, int64_t sequence) const override;
  at::Tensor get(std::string_view name, int64_t sequence) const override;
  void put(std::string_view name, int64_t sequence, at::Tensor value) override;
  void forget(int64_t sequence) override;

 private:
  struct Rows { at::Tensor buffer; int64_t used = 0; };
  std::map<std::pair<int64_t, std::string>, Rows> rows_;
  std::map<std::pair<int64_t, std::string>, at::Tensor> fixed_;
};

}  // namespace switchyard
