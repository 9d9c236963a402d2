#include "switchyard/contract/parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include "switchyard/base/error.h"
#include "switchyard/base/random.h"

namespace switchyard {

const char* to_string(Role role) {
  switch (role) {
    case Role::embedding: return "embedding";
    case Role::head: return "head";
    case Role::projection: return "projection";
    case Role::norm: return "norm";
    case Role::bias: return "bias";
    case Role::router: return "router";
    case Role::expert: return "expert";
    case Role::adapter: return "adapter";
    case Role::buffer: return "buffer";
  }
  return "?";
}

int64_t Parameter::count() const {
  int64_t product = 1;
  for (int64_t extent : spec().shape) product *= extent;
  return product;
}

const at::Tensor& Parameter::tensor() const {
  check(bound(), "parameters.unbound", "parameter {} has no values yet; initialise the model or load a checkpoint",
        slot_ ? slot_->spec.name : "(never declared)");
  if (slot_->packed) bind(slot_->packed->unpack());
  return slot_->data;
}

void Parameter::check_shape(at::IntArrayRef shape) const {
  check(shape == at::IntArrayRef(spec().shape), "parameters.shape", "{} has shape [{}], but the model declares [{}]", name(),
        fmt::join(shape.vec(), ", "), fmt::join(spec().shape, ", "));
}

void Parameter::bind(std::shared_ptr<const PackedWeight> packed) const {
  check_shape(packed->shape());
  slot_->data.reset();
  slot_->packed = std::move(packed);
}

void Parameter::bind(at::Tensor data) const {
  check_shape(data.sizes());
  if (spec().dtype) data = data.to(*spec().dtype);
  if (!spec().buffer && at::isFloatingType(data.scalar_type())) data.requires_grad_();
  slot_->data = std::move(data);
  slot_->packed.reset();
}

Schema Schema::in(std::string_view name) const {
  Schema inner = *this;
  inner.prefix_ = prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
  return inner;
}

namespace {

Parameter declare(std::vector<Parameter>& list, ParamSpec spec) {
  for (const Parameter& known : list) check(known.name() != spec.name, "parameters.duplicate", "{} is declared twice", spec.name);
  list.push_back(Parameter(std::move(spec)));
  return list.back();
}

}  // namespace

Parameter Schema::add(std::string_view name, std::vector<int64_t> shape, Role role, Init init, int expert_dim) const {
  ParamSpec spec;
  spec.name = prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
  spec.shape = std::move(shape);
  spec.role = role;
  spec.init = std::move(init);
  spec.expert_dim = expert_dim;
  spec.buffer = role == Role::buffer;
  return declare(*list_, std::move(spec));
}

Parameter Schema::buffer(std::string_view name, std::vector<int64_t> shape, Init init,
                         std::optional<at::ScalarType> dtype) const {
  ParamSpec spec;
  spec.name = prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
  spec.shape = std::move(shape);
  spec.role = Role::buffer;
  spec.init = std::move(init);
  spec.buffer = true;
  spec.dtype = dtype;
  return declare(*list_, std::move(spec));
}

Parameter Schema::find(std::string_view full_name) const {
  for (const Parameter& parameter : *list_)
    if (parameter.name() == full_name) return parameter;
  return {};
}

int64_t Schema::count() const {
  int64_t sum = 0;
  for (const Parameter& parameter : *list_)
    if (!parameter.spec().buffer) sum += parameter.count();
  return sum;
}

void initialise(const Schema& schema, const Streams& random, at::ScalarType model_dtype) {
  at::NoGradGuard guard;
  for (const Parameter& parameter : schema.all()) {
    if (parameter.bound()) continue;
    const ParamSpec& spec = parameter.spec();
    const RandomKey key{.purpose = "init", .site = spec.name};
    at::Tensor data;
    const at::ScalarType dtype = spec.dtype.value_or(model_dtype);
    switch (spec.init.kind) {
      case Init::Kind::zeros: data = at::empty(spec.shape, dtype).zero_(); break;
      case Init::Kind::ones: data = at::empty(spec.shape, dtype).fill_(1); break;
      case Init::Kind::normal: data = random.normal(spec.shape, key, dtype).mul_(spec.init.scale); break;
      case Init::Kind::uniform:
        data = random.uniform(spec.shape, key, dtype).mul_(2).sub_(1).mul_(spec.init.scale);
        break;
      case Init::Kind::computed: data = spec.init.values().to(dtype); break;
    }
    parameter.bind(std::move(data));
  }
}

const at::Tensor& Params::operator[](std::string_view name) const {
  static const at::Tensor absent;
  for (const auto& [known, tensor] : values)
    if (known == name) return tensor;
  return absent;
}

std::shared_ptr<const PackedWeight> Params::packed_named(std::string_view name) const {
  for (const auto& [known, weight] : packed)
    if (known == name) return weight;
  return nullptr;
}

}  // namespace switchyard
