// Parameters are declared, then bound. A part declares names, shapes, roles and initial values and
// keeps handles; what fills them (random numbers, a file, nothing at all when only counting) comes
// later. One declaration feeds counting, loading, export, freezing and optimiser groups.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

class Streams;

/// What a parameter is for: optimiser groups, freezing and export choose by it.
enum class Role { embedding, head, projection, norm, bias, router, expert, adapter, buffer };
const char* to_string(Role role);

/// How a parameter begins.
struct Init {
  enum class Kind { zeros, ones, normal, uniform, computed };
  Kind kind = Kind::zeros;
  double scale = 0;  ///< normal: standard deviation; uniform: half-width
  std::function<at::Tensor()> values;  ///< computed: called when a model begins, not when one is loaded
  static Init zeros() { return {}; }
  static Init ones() { return {Kind::ones, 0, {}}; }
  static Init normal(double deviation) { return {Kind::normal, deviation, {}}; }
  static Init uniform(double half_width) { return {Kind::uniform, half_width, {}}; }
  /// A table made from options or a file (hash routing, class centres).
  static Init computed(std::function<at::Tensor()> values) { return {Kind::computed, 0, std::move(values)}; }
};

struct ParamSpec {
  std::string name;              ///< full, dotted: "layers.3.feed_forward.experts.up"
  std::vector<int64_t> shape;
  Role role = Role::projection;
  Init init;
  int expert_dim = -1;           ///< the axis that runs over experts, or -1
  bool buffer = false;           ///< saved, but never given a gradient
  std::optional<at::ScalarType> dtype;  ///< kept in this type whatever the model's (tables of ids, selection biases)
};

/// A weight that stays as its file has it, quantised in blocks (kernels/packed_weight.h): the parts that multiply by it do so
/// as it lies.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual const std::vector<int64_t>& shape() const = 0;  ///< of the numbers it stands for
  virtual at::ScalarType type() const = 0;                ///< of unpack() and rows()
  virtual at::Tensor unpack() const = 0;
  /// Of a matrix [out, in]: x [.., in] → x·Wᵀ + bias [.., out], bias undefined or [out].
  virtual at::Tensor linear(const at::Tensor& x, const at::Tensor& bias) const = 0;
  /// Of a table [V, D]: ids [..] int64 → [.., D], its rows.
  virtual at::Tensor rows(const at::Tensor& ids) const = 0;
};

/// A handle to one declared tensor; copies share it.
class Parameter {
 public:
  Parameter() = default;
  explicit Parameter(ParamSpec spec) : slot_(std::make_shared<Slot>(Slot{std::move(spec), {}, nullptr})) {}

  explicit operator bool() const { return slot_ != nullptr; }
  const ParamSpec& spec() const { return slot_->spec; }
  const std::string& name() const { return slot_->spec.name; }
  int64_t count() const;
  bool bound() const { return slot_ && (slot_->data.defined() || slot_->packed); }
  /// The bound tensor; throws parameters.unbound. A packed weight is unpacked for good: who can multiply by it as it lies asks
  /// for packed() first.
  const at::Tensor& tensor() const;
  /// What was bound packed and has stayed so; null otherwise.
  const std::shared_ptr<const PackedWeight>& packed() const { return slot_->packed; }
  /// Throws parameters.shape when `data` has another shape. Non-buffers get requires_grad; a fixed type is converted to.
  void bind(at::Tensor data) const;
  void bind(std::shared_ptr<const PackedWeight> packed) const;
  void unbind() const {
    slot_->data.reset();
    slot_->packed.reset();
  }
  bool same(const Parameter& other) const { return slot_ == other.slot_; }

 private:
  void check_shape(at::IntArrayRef shape) const;
  struct Slot {
    ParamSpec spec;
    at::Tensor data;
    std::shared_ptr<const PackedWeight> packed;
  };
  std::shared_ptr<Slot> slot_;
};

/// Where parts declare. Copies share the list; `in` gives the same list under a longer prefix.
class Schema {
 public:
  Schema() : list_(std::make_shared<std::vector<Parameter>>()) {}

  Schema in(std::string_view name) const;
  const std::string& prefix() const { return prefix_; }
  /// Declares prefix.name; throws parameters.duplicate.
  Parameter add(std::string_view name, std::vector<int64_t> shape, Role role, Init init, int expert_dim = -1) const;
  /// dtype: kept whatever the model's; unset = the model's.
  Parameter buffer(std::string_view name, std::vector<int64_t> shape, Init init = Init::zeros(),
                   std::optional<at::ScalarType> dtype = {}) const;

  const std::vector<Parameter>& all() const { return *list_; }
  /// The parameter of that full name, or an empty handle.
  Parameter find(std::string_view full_name) const;
  int64_t count() const;  ///< elements, buffers left out

 private:
  std::shared_ptr<std::vector<Parameter>> list_;
  std::string prefix_;
};

/// Binds every unbound parameter to fresh values; each depends on the seed and its own name alone.
void initialise(const Schema& schema, const Streams& random, at::ScalarType dtype = at::kFloat);

/// Named tensors of one expert (or of a stack: leading axis E).
struct Params {
  std::vector<std::pair<std::string, at::Tensor>> values;
  const at::Tensor& operator[](std::string_view name) const;  ///< undefined tensor when absent
  /// Those that are packed, which then have no tensor; only for kinds that take them.
  std::vector<std::pair<std::string, std::shared_ptr<const PackedWeight>>> packed;
  std::shared_ptr<const PackedWeight> packed_named(std::string_view name) const;  ///< null when absent
};

}  // namespace switchyard
