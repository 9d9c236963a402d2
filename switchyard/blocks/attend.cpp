#include "switchyard/blocks/attend.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "switchyard/kernels/held_attention.h"
#include "switchyard/kernels/linear.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/prompt_attention.h"

namespace switchyard {
namespace {

/// Which of m keys n queries see, [n, m] bool; undefined = all of them, or a plain triangle (n = m).
at::Tensor visible(int64_t n, int64_t m, bool causal, const AttendOptions& options, at::Device device) {
  const bool narrow = causal && options.window > 0 && options.window < m;
  const bool chunked = causal && options.chunk > 0 && options.chunk < m;
  if (!narrow && !chunked && !(causal && n > 1 && n != m)) return {};
  at::Tensor mask = at::ones({n, m}, at::TensorOptions().dtype(at::kBool).device(device)).tril(m - n);
  if (narrow) mask = mask.triu(m - n - options.window + 1);
  if (chunked) {
    const at::Tensor chunk = at::arange(m, at::TensorOptions().dtype(at::kLong).device(device)).floor_divide(options.chunk);
    mask = mask.logical_and(chunk.narrow(0, m - n, n).unsqueeze(1) == chunk.unsqueeze(0));
  }
  return mask;
}

/// How many of m keys lie before all that n queries see.
int64_t passed(int64_t n, int64_t m, bool causal, const AttendOptions& options) {
  if (!causal || options.bias) return 0;
  int64_t first = options.window > 0 ? std::max<int64_t>(0, m - n - options.window + 1) : 0;
  if (options.chunk > 0) first = std::max(first, m - n) / options.chunk * options.chunk;  // chunks are counted from the first key
  return first;
}

/// Query heads that share a key head as further queries of it: [B, H, n, d] → [B, Hk, H / Hk · n, d], and back.
at::Tensor share_keys(const at::Tensor& q, int64_t kv_heads) { return q.reshape({q.size(0), kv_heads, -1, q.size(3)}); }
at::Tensor by_heads(const at::Tensor& y, int64_t heads, int64_t n) { return y.reshape({y.size(0), heads, n, y.size(3)}); }

/// The products written out, for what the fused form has no place for. q: [B, H, n, d]; k, v: [B, Hk, m, ·].
at::Tensor attend_plainly(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::Tensor mask, bool causal, const AttendOptions& options) {
  const int64_t heads = q.size(1), n = q.size(2), m = k.size(2);
  at::Tensor scores = by_heads(at::matmul(share_keys(q, k.size(1)), k.transpose(-2, -1)), heads, n) *
                      options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(3))));
  if (options.bias) scores = scores + options.bias(m - n, n, m).to(scores.scalar_type());
  if (options.cap > 0) scores = (scores / options.cap).tanh() * options.cap;
  if (!mask.defined() && causal && n > 1) mask = at::ones({n, m}, scores.options().dtype(at::kBool)).tril(m - n);
  if (mask.defined()) scores = scores.masked_fill(mask.logical_not(), -INFINITY);
  if (scores.scalar_type() != at::kDouble) scores = scores.to(at::kFloat);
  if (options.sinks.defined()) {
    const at::Tensor sinks = options.sinks.to(scores.scalar_type()).view({1, -1, 1, 1}).expand({scores.size(0), -1, n, 1});
    scores = at::cat({scores, sinks}, -1).softmax(-1).narrow(-1, 0, m);
  } else {
    scores = scores.softmax(-1);
  }
  return by_heads(at::matmul(share_keys(scores.to(v.scalar_type()), v.size(1)), v), heads, n);
}

/// Sinks beside the fused form, which says how large the sum of the exponentials was: a sink takes its share of it.
at::Tensor attend_with_sinks(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::Tensor mask, bool causal, const AttendOptions& options) {
  const int64_t group = q.size(1) / k.size(1), n = q.size(2);
  const bool triangle = causal && n > 1 && !mask.defined(), one = n == 1 && group > 1;
  if (mask.defined()) mask = at::zeros(mask.sizes(), q.options()).masked_fill(mask.logical_not(), -INFINITY);
  const auto every_head = [&](const at::Tensor& t) { return one || group == 1 ? t : t.repeat_interleave(group, 1); };
  auto [y, sum] = at::_scaled_dot_product_flash_attention_for_cpu(one ? share_keys(q, k.size(1)) : q, every_head(k), every_head(v), /*dropout_p=*/0,
                                                                  triangle, mask.defined() ? std::optional(mask) : std::nullopt, options.scale);
  if (one) y = by_heads(y, q.size(1), n);
  const at::Tensor share = (sum.to(at::kFloat).reshape({q.size(0), q.size(1), n, 1}) - options.sinks.to(at::kFloat).view({1, -1, 1, 1})).sigmoid();
  return (y.to(at::kFloat) * share).to(v.scalar_type());
}

/// Whether the form above computes it: no gradient goes through the sum.
bool fused_sinks(const at::Tensor& q, const at::Tensor& v, const AttendOptions& options) {
  return options.sinks.defined() && options.cap == 0 && !options.bias && q.device().is_cpu() && q.scalar_type() != at::kDouble &&
         q.size(3) == v.size(3) && q.numel() > 0 && !at::GradMode::is_enabled();
}

/// q: [B·n, H, d], k, v: [B·m, Hk, ·] of B sequences of n queries and m keys → [B·n, H, dv]. The last query of a
/// sequence stands at its last key.
at::Tensor attend_batch(const at::Tensor& given_q, const at::Tensor& given_k, const at::Tensor& given_v, int64_t batch, bool causal,
                        const AttendOptions& options) {
  const kernels::FastProducts fast(given_q);
  const at::Tensor q = fast(given_q), k = fast(given_k), v = fast(given_v);
  const int64_t n = q.size(0) / batch, all = k.size(0) / batch, first = passed(n, all, causal, options), m = all - first;
  const auto heads_first = [batch](const at::Tensor& t, int64_t length) {
    return t.reshape({batch, length, t.size(1), t.size(2)}).transpose(1, 2);
  };
  const at::Tensor mask = visible(n, m, causal, options, q.device());
  const at::Tensor queries = heads_first(q, n), keys = heads_first(k, all).narrow(2, first, m);
  at::Tensor values = heads_first(v, all).narrow(2, first, m), y;
  const bool one = n == 1 && q.size(1) != k.size(1);  // heads that share keys need no copies of them
  if (fused_sinks(queries, values, options))
    y = attend_with_sinks(queries, keys, values, mask, causal, options);
  else if (options.cap > 0 || options.sinks.defined() || options.bias)
    y = attend_plainly(queries, keys, values, mask, causal, options);
  else if (one)
    y = by_heads(at::scaled_dot_product_attention(share_keys(queries, k.size(1)), keys, values, mask.defined() ? std::optional(mask) : std::nullopt,
                                                  /*dropout_p=*/0, /*is_causal=*/false, options.scale), q.size(1), n);
  else {
    // One width for keys and values is what the fused form has: narrower values are filled up, and the rest is cut off again. Else
    // the scores of all pairs would lie in memory at once.
    const int64_t width = v.size(2), missing = q.size(2) - width;
    if (missing > 0 && n > 1) values = at::constant_pad_nd(values, {0, missing});
    y = at::scaled_dot_product_attention(queries, keys, values, mask.defined() ? std::optional(mask) : std::nullopt, /*dropout_p=*/0,
                                         /*is_causal=*/causal && n > 1 && !mask.defined(), options.scale,
                                         /*enable_gqa=*/q.size(1) != k.size(1)).narrow(3, 0, width);
  }
  return fast.result(y.transpose(1, 2).reshape({batch * n, q.size(1), v.size(2)}));
}

/// Whole sequences: rows of equal length go together, whatever lies between them.
at::Tensor attend_whole(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
                        const AttendOptions& options) {
  std::vector<int64_t> order;
  for (int64_t s = 0; s < segments.count(); ++s)
    if (segments.length(s) > 0) order.push_back(s);
  const auto by_length = [&](int64_t a, int64_t b) { return segments.length(a) < segments.length(b); };
  const bool in_order = std::is_sorted(order.begin(), order.end(), by_length);
  at::Tensor sorted_q = q, sorted_k = k, sorted_v = v, row;
  if (!in_order) {
    std::stable_sort(order.begin(), order.end(), by_length);
    row = at::empty({segments.rows()}, at::kLong);
    int64_t* out = row.mutable_data_ptr<int64_t>();
    for (int64_t s : order) {
      std::iota(out, out + segments.length(s), segments.begin[s]);
      out += segments.length(s);
    }
    sorted_q = kernels::gather_rows(q, row);
    sorted_k = kernels::gather_rows(k, row);
    sorted_v = kernels::gather_rows(v, row);
  }
  std::vector<at::Tensor> outputs;
  int64_t begin = 0;
  for (size_t first = 0; first < order.size();) {
    const int64_t length = segments.length(order[first]);
    size_t last = first;
    while (last < order.size() && segments.length(order[last]) == length) ++last;
    const int64_t batch = static_cast<int64_t>(last - first), rows = batch * length;
    outputs.push_back(attend_batch(sorted_q.narrow(0, begin, rows), sorted_k.narrow(0, begin, rows),
                                   sorted_v.narrow(0, begin, rows), batch, segments.causal, options));
    begin += rows;
    first = last;
  }
  if (outputs.empty()) return q.new_empty({0, q.size(1), v.size(2)});
  const at::Tensor y = outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
  return in_order ? y : kernels::gather_rows(y, kernels::inverse_order(row, segments.rows()));
}

}  // namespace

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& given, const Context& context,
                  const AttendOptions& options) {
  const at::Tensor v = options.value_in_key > 0 ? k.narrow(-1, 0, options.value_in_key) : given;
  const Segments& segments = context.facts.segments;
  StateStore* state = context.state;
  if (state == nullptr) return attend_whole(q, k, v, segments, options);

  const std::string key = options.name + ".key", value = options.name + ".value";
  bool fresh = !options.turn;  // nothing held yet: what this pass brings is all there is
  for (int64_t s = 0; s < segments.count(); ++s)
    fresh = fresh && (segments.length(s) == 0 || state->length(key, segments.sequence_of(s)) == 0);
  const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(2))));
  const kernels::HeldOptions scores{.scale = scale, .cap = options.cap, .sinks = options.sinks};
  std::vector<at::Tensor> outputs;
  std::vector<kernels::HeldKeys> held;  // of sequences that bring one row each
  bool steps = !fresh && !options.bias && kernels::takes_held(q, {k, v});
  for (int64_t s = 0; s < segments.count(); ++s) steps = steps && segments.length(s) == 1;
  const bool prompts = !steps && !options.bias && kernels::takes_prompt(q, {k, v});
  for (int64_t s = 0; s < segments.count(); ++s) {
    const int64_t begin = segments.begin[s], length = segments.length(s), sequence = segments.sequence_of(s);
    if (length == 0) continue;
    at::Tensor keys = state->append(key, sequence, k.narrow(0, begin, length));
    if (options.turn) keys = options.turn(keys);
    const at::Tensor values = options.value_in_key > 0 ? keys.narrow(-1, 0, options.value_in_key)
                                                       : state->append(value, sequence, v.narrow(0, begin, length));
    if (steps) {
      const int64_t first = passed(1, keys.size(0), segments.causal, options), m = keys.size(0) - first;
      held.push_back({keys.narrow(0, first, m), values.narrow(0, first, m)});
      continue;
    }
    const kernels::HeldKeys seen = fresh ? kernels::HeldKeys{k.narrow(0, begin, length), v.narrow(0, begin, length)} : kernels::HeldKeys{keys, values};
    const at::Tensor rows = q.narrow(0, begin, length);
    if (prompts && kernels::takes_prompt(rows, seen))
      outputs.push_back(kernels::attend_prompt(rows, seen, {.scores = scores, .causal = segments.causal, .window = options.window, .chunk = options.chunk}));
    else if (!fresh)
      outputs.push_back(attend_batch(rows, keys, values, 1, segments.causal, options));
  }
  if (steps) return kernels::attend_held(q, held, scores);
  if (outputs.empty()) return attend_whole(q, k, v, segments, options);
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

std::vector<StateSpec> attend_states(const std::string& name, int64_t kv_heads, int64_t key_dim, int64_t value_dim) {
  if (value_dim == 0) return {{.name = name + ".key", .shape = {kv_heads, key_dim}}};
  return {{.name = name + ".key", .shape = {kv_heads, key_dim}}, {.name = name + ".value", .shape = {kv_heads, value_dim}}};
}

at::Tensor attend_across(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
                         const Segments& others, const AttendOptions& options) {
  const auto alike = [](const Segments& of) {
    for (int64_t s = 0; s < of.count(); ++s)
      if (of.length(s) != of.length(0)) return false;
    return true;
  };
  if (segments.rows() > 0 && alike(segments) && alike(others)) return attend_batch(q, k, v, segments.count(), /*causal=*/false, options);
  std::vector<at::Tensor> outputs;
  for (int64_t s = 0; s < segments.count(); ++s)
    if (segments.length(s) > 0)
      outputs.push_back(attend_batch(q.narrow(0, segments.begin[s], segments.length(s)), k.narrow(0, others.begin[s], others.length(s)),
                                     v.narrow(0, others.begin[s], others.length(s)), 1, /*causal=*/false, options));
  if (outputs.empty()) return q.new_empty({0, q.size(1), v.size(2)});
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

}  // namespace switchyard
