#include "switchyard/blocks/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>

#include "switchyard/base/registry.h"

namespace switchyard {

void RmsNorm::declare(const Schema& schema) { weight_ = schema.add("weight", {width_}, Role::norm, Init::ones()); }

at::Tensor RmsNorm::forward(const at::Tensor& x, const Context& context) const {
  const bool half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  const at::Tensor wide = half ? x.to(at::kFloat) : x;
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps_);
  return (wide * scale).to(x.scalar_type()) * context[weight_].to(x.scalar_type());
}

void LayerNorm::declare(const Schema& schema) {
  weight_ = schema.add("weight", {width_}, Role::norm, Init::ones());
  bias_ = schema.add("bias", {width_}, Role::norm, Init::zeros());
}

at::Tensor LayerNorm::forward(const at::Tensor& x, const Context& context) const {
  return at::layer_norm(x, {width_}, context[weight_], context[bias_], eps_);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(norms) {
  registry.add_card({.slug = "rmsnorm", .name = "RMSNorm", .paper = "Zhang and Sennrich, Root mean square layer normalization",
                     .year = 2019, .section = "4.2.3", .room = "blocks", .coupling = "none",
                     .line = "rows divided by their root mean square: `norm: rms`", .recipe = "recipes/quickstart.yaml"});
}
