#include "switchyard/blocks/site_linear.h"

#include "switchyard/contract/adaptation.h"

namespace switchyard {

SiteLinear::SiteLinear(const BodyPlace& place, const std::string& name, int64_t in, int64_t out, bool bias)
    : name_(name), in_(in), out_(out), has_bias_(bias), deviation_(place.init_deviation), site_(place.site(name, in, out)) {}

void SiteLinear::declare(const Schema& schema) {
  const Schema place = schema.in(name_);
  if (!site_.replaced()) {
    weight_ = place.add("weight", {out_, in_}, Role::projection, Init::normal(deviation_));
    if (has_bias_) bias_ = place.add("bias", {out_}, Role::bias, Init::zeros());
  }
  site_.declare(place);
}

at::Tensor SiteLinear::operator()(const at::Tensor& x, const Context& context) const {
  return site_(x, context, [this](const at::Tensor& rows, const Context& at) {
    return linear(rows, weight_, bias_, at);
  });
}

}  // namespace switchyard
