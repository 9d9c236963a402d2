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

enum class Positions {
  rope,
  learned,     ///< a vector a position
  sinusoidal,  ///< sines, then cosines, of frequencies from 1 to 1/10000 (Vaswani et al. 2017, as in fairseq)
  relative,    ///< a learned bias a head on the scores, by how far apart two rows are (T5; blocks/relative_bias.h)
  none,
};
enum class BlockForm {
  pre_norm,   ///< x + attention(norm(x)), then x + feed_forward(norm(x))
  parallel,   ///< x + attention(n) + feed_forward(n) with one n = norm(x)
  post_norm,  ///< x + norm(attention(x)), then x + norm(feed_forward(x)) (OLMo 2)
  sandwich,   ///< x + norm(attention(norm(x))), then the same with feed_forward (Grok-1)
  keep_norm,  ///< n + attention(n) with n = norm(x), then the same with feed_forward: the stream is normed (MiniMax-01)
  after_norm, ///< norm(x + attention(x)), then norm(x + feed_forward(x)) (BERT, Vaswani et al. 2017)
  beside,     ///< x + attention(norm(x)), then + extra(norm(x)), and feed_forward reads the block's input (Arctic)
};

/// A stack of blocks with its positions and its last norm.
struct StackOptions {
  int64_t layers = 6;
  bool causal = true;
  Norm norm = Norm::rms;
  double norm_eps = 1e-5;
  bool embedding_norm = false;           ///< embedded rows are normed (BERT)
  bool final_norm = true;
  std::optional<double> final_norm_eps;  ///< of the norm behind the last block; unset = norm_eps
  Positions positions = Positions::rope;
  double rope_theta = 10000;
  double rope_fraction = 1;
  RotaryPairs rope_pairs = RotaryPairs::half;
  RotaryScaling rope_scaling;
  int64_t position_offset = 0;           ///< sinusoidal: the number of a sequence's first row
  int64_t relative_buckets = 32, relative_distance = 128;
  BlockForm block = BlockForm::pre_norm;
  Choice<Body> attention = "gqa";
  Choice<Body> feed_forward = "feed-forward";
  Choice<Body> extra;              ///< a third sub-layer; none = there is none
  ResidualOptions residual;
  std::vector<LayerVariant> variants;
  double init_deviation = 0.02;
  std::vector<MixtureOptions> mixtures;
  std::vector<SiteOptions> sites;
  template <typename T>
  static void describe_fields(Fields<T>& f);
  /// The body of a layer: the last variant that names one there, else the stack's.
  const Choice<Body>& attention_of(int64_t layer) const;
  const Choice<Body>& feed_forward_of(int64_t layer) const;
  const Choice<Body>& extra_of(int64_t layer) const;
  const ResidualOptions& residual_of(int64_t layer) const;
};

/// A stack that reads one sequence whole, for a decoder that writes another.
struct EncoderOptions : StackOptions {
  int64_t start_token = 0;  ///< what the decoder begins with
  EncoderOptions() { causal = false; }
  static void describe(Fields<EncoderOptions>& f);
};

/// Images instead of tokens: square patches, row by row, behind one learned row.
struct PatchOptions {
  int64_t image = 224, patch = 16, channels = 3;
  int64_t count() const { return (image / patch) * (image / patch); }
  static void describe(Fields<PatchOptions>& f);
};

struct ModelOptions : StackOptions {
  int64_t vocabulary = 0;          ///< 0 = the tokenizer's size
  int64_t width = 256;
  int64_t context = 1024;          ///< longest sequence, tokens
  std::optional<EncoderOptions> encoder;
  Choice<Body> cross_attention;    ///< looks at the encoder's rows, between attention and feed-forward; none without an encoder
  std::optional<PatchOptions> patches;  ///< set = the model reads images
  int64_t token_types = 0;         ///< kinds of tokens with a vector each, by the fact "token_type" (BERT)
  bool tied_embeddings = true;
  std::string head_transform = "none";  ///< a map with that activation before the head
  bool head_norm = false;          ///< and a norm behind it (BERT's masked-language head)
  bool head_bias = false;
  int64_t classes = 0;             ///< the head names the class of a sequence by its first row; 0 = the next token of every row
  double embedding_scale = 1;      ///< multiplies embedded tokens
  double logit_scale = 1;          ///< multiplies logits
  double logit_cap = 0;            ///< logits z become cap · tanh(z / cap); 0 = never
  static void describe(Fields<ModelOptions>& f);
  /// Columns of the logits.
  int64_t outputs() const { return classes > 0 ? classes : vocabulary; }
};

}  // namespace switchyard
