// A model as a recipe or a saved config describes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/body.h"
#include "switchyard/layer/moe_layer.h"

namespace switchyard {

/// Which layers: all rules that are set must agree (survey 4.2.2, Table 2).
struct Placement {
  int64_t every = 1;           ///< every n-th layer
  int64_t offset = -1;         ///< first layer of `every`; -1 = every - 1 (GShard: the second of two)
  int64_t last = 0;            ///< only the last n; 0 = no limit
  int64_t first_dense = 0;     ///< not the first n
  std::vector<int64_t> list;   ///< exactly these (negative = from the end); empty = by the rules above
  bool includes(int64_t layer, int64_t layers) const;
  static void describe(Fields<Placement>& f);
};

/// How a mixture joins what it sits around.
enum class Join { replace, add, multiply };

/// A mixture of experts at a named site of the chosen layers.
struct MixtureOptions : MoeOptions {
  std::string at = "feed_forward";  ///< site within a block: "feed_forward", "attention.query", ...
  Placement layers;
  Join join = Join::replace;
  static void describe(Fields<MixtureOptions>& f);
};

/// Any other method around a named site (an adapter, depth routing, a probe).
struct SiteOptions {
  std::string at;
  Placement layers;
  Choice<Around> around;
  static void describe(Fields<SiteOptions>& f);
};

/// How much of its stream a sub-layer keeps and how much of its result it adds.
struct ResidualOptions {
  double attention_keep = 1, attention_add = 1, feed_forward_keep = 1, feed_forward_add = 1;
  static void describe(Fields<ResidualOptions>& f);
};

/// Layers whose attention, feed-forward or residual sum is another one than the model's.
struct LayerVariant {
  Placement layers;
  std::optional<Choice<Body>> attention, feed_forward;  ///< unset = the model's; none = no such sub-layer
  std::optional<Choice<Body>> extra;
  std::optional<ResidualOptions> residual;
  static void describe(Fields<LayerVariant>& f);
};

enum class Positions { rope, learned, none };
enum class BlockForm {
  pre_norm,   ///< x + attention(norm(x)), then x + feed_forward(norm(x))
  parallel,   ///< x + attention(n) + feed_forward(n) with one n = norm(x)
  post_norm,  ///< x + norm(attention(x)), then x + norm(feed_forward(x)) (OLMo 2)
  sandwich,   ///< x + norm(attention(norm(x))), then the same with feed_forward (Grok-1)
  keep_norm,  ///< n + attention(n) with n = norm(x), then the same with feed_forward: the stream is normed (MiniMax-01)
  after_norm, ///< norm(x + attention(x)), then norm(x + feed_forward(x)) (BERT, Vaswani et al. 2017)
  beside,     ///< x + attention(norm(x)), then + extra(norm(x)), and feed_forward reads the block's input (Arctic)
};

struct ModelOptions {
  int64_t vocabulary = 0;          ///< 0 = the tokenizer's size
  int64_t width = 256;
  int64_t layers = 6;
  int64_t context = 1024;          ///< longest sequence, tokens
  bool causal = true;
  Norm norm = Norm::rms;
  double norm_eps = 1e-5;
  std::optional<double> final_norm_eps;  ///< of the norm before the head; unset = norm_eps
  Positions positions = Positions::rope;
  double rope_theta = 10000;
  double rope_fraction = 1;
  RotaryPairs rope_pairs = RotaryPairs::half;
  RotaryScaling rope_scaling;
  BlockForm block = BlockForm::pre_norm;
  Choice<Body> attention = "gqa";
  Choice<Body> feed_forward = "feed-forward";
  Choice<Body> extra;              ///< a third sub-layer; none = there is none
  ResidualOptions residual;
  std::vector<LayerVariant> variants;
  bool tied_embeddings = true;
  bool head_bias = false;
  double embedding_scale = 1;      ///< multiplies embedded tokens
  double logit_scale = 1;          ///< multiplies logits
  double logit_cap = 0;            ///< logits z become cap · tanh(z / cap); 0 = never
  double init_deviation = 0.02;
  std::vector<MixtureOptions> mixtures;
  std::vector<SiteOptions> sites;
  static void describe(Fields<ModelOptions>& f);
  /// The body of a layer: the last variant that names one there, else the model's.
  const Choice<Body>& attention_of(int64_t layer) const;
  const Choice<Body>& feed_forward_of(int64_t layer) const;
  const Choice<Body>& extra_of(int64_t layer) const;
  const ResidualOptions& residual_of(int64_t layer) const;
};

}  // namespace switchyard
