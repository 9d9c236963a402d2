// A router to copy: every row engages the k experts whose learned directions lie nearest to it in angle.
// Copy the pair of files to switchyard/routing/token_choice/, rename, and change what makes your method yours;
// docs/adding.md goes through it line by line.
#pragma once

#include <memory>

#include "switchyard/routing/select.h"

namespace switchyard {

struct SkeletonOptions {
  int64_t k = 2;
  double temperature = 0.1;
  /// One description: it reads and checks recipes, and writes --help, the reference page and the JSON schema.
  static void describe(Fields<SkeletonOptions>& f) {
    f.title("Skeleton router", "The k experts with the smallest angle to the row.");
    f("k", &SkeletonOptions::k, "experts that a token engages").range(1, 1 << 20);
    f("temperature", &SkeletonOptions::temperature, "divides the cosines before the softmax").range(1e-3, 1e3);
  }
};

class SkeletonRouter : public Router {
 public:
  explicit SkeletonRouter(SkeletonOptions options) : options_(options) {}

  /// Declares directions [E, D]. Throws routing.k_range when k > E.
  void declare(const Schema& schema, const RouterSize& size) override;
  /// x: [T, D] → k pairs a row, weighted by the softmax over the chosen cosines.
  Engagement route(const RouterInput& input, const Context& context) const override;

 private:
  SkeletonOptions options_;
  Parameter directions_;
};

}  // namespace switchyard
