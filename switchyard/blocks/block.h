// A block is a list of sub-layers over named streams of rows. Sequential, parallel, sandwich-normed and
// three-sub-layer blocks, and mixtures that read another stream, are all lists; there is one class.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "switchyard/contract/part.h"

namespace switchyard {

/// write = after(keep · write + add · post(body(pre(read)))). Streams: "x" is the block's running value and its result, "in"
/// its input (never written). A stream that was not written before begins at zero.
struct Sub {
  std::string name;                ///< "attention", "feed_forward": the site's name inside the block
  std::string read = "x";
  std::string write = "x";
  PartPtr pre, body, post;         ///< null = identity; the body may be null when a site occupant replaces it
  PartPtr after = {};              ///< of the sum that is written; null = identity
  enum class Kept { stream, normed };
  Kept kept = Kept::stream;        ///< what `keep` multiplies: the stream written to, or pre(read)
  double keep = 1;
  double add = 1;
  Site site;                       ///< around body
};

class Block : public Part {
 public:
  /// `site`: around the whole block ("layers.3"), for depth routing and probes.
  Block(std::string name, int64_t layer, std::vector<Sub> subs, Site site);
  void declare(const Schema& schema) override;
  /// After declare: a parameter from outside that forward reads too, so that recomputation differentiates it.
  void also_reads(const Parameter& parameter) { parameters_.push_back(parameter); }
  /// With context.recompute the activations are dropped and computed again in backward (blocks/recompute.h).
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;
  std::vector<StateSpec> states() const override;
  Reach reach(const Overrides& overrides, Phase phase) const override;
  void each_child(const std::function<void(Part&)>& visit) override;
  const std::vector<Sub>& subs() const { return subs_; }

 private:
  at::Tensor run(const at::Tensor& x, const Context& context) const;
  std::string name_;
  int64_t layer_;
  std::vector<Sub> subs_;
  Site site_;
  std::vector<Parameter> parameters_;  ///< all that forward reads: those declared inside, and shared ones
};

}  // namespace switchyard
