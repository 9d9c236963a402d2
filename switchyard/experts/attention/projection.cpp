// A linear map as an expert: the query and output maps of attention experts (Zhang et al. 2022).

#include <cmath>

#include "switchyard/base/registry.h"
#include "switchyard/experts/kind.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {
namespace {

struct ProjectionOptions {
  double init_deviation = 0.02;
  static void describe(Fields<ProjectionOptions>& f) {
    f("init_deviation", &ProjectionOptions::init_deviation, "standard deviation of the initial weights").range(0);
  }
};

class ProjectionExpert : public ExpertKind {
 public:
  explicit ProjectionExpert(const ProjectionOptions& options) : options_(options) {}
  std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const override {
    return {{"weight", {out, in}, Init::normal(options_.init_deviation)}};
  }
  at::Tensor apply(const Params& p, const at::Tensor& rows, const Context&) const override {
    return kernels::linear(rows, p["weight"]);
  }
  at::Tensor apply_grouped(const Params& stacked, const GroupedRows& rows, const Context&) const override {
    const at::Tensor x = rows.x.defined() ? rows.x : rows.source.index_select(0, rows.row);
    return kernels::grouped_linear(x, stacked["weight"], rows.offset);
  }

 private:
  ProjectionOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(projection_expert) {
  using namespace switchyard;
  registry.add<ExpertKind, ProjectionExpert, ProjectionOptions>(
      {.slug = "projection-expert", .name = "Linear map expert", .paper = "Zhang et al., Mixture of attention heads",
       .year = 2022, .section = "4.2.1", .room = "experts/attention", .coupling = "none",
       .line = "one linear map an expert", .recipe = "recipes/methods/moa.yaml"});
}
