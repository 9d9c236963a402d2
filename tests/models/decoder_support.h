// What tests of models share: a model from a few lines of YAML, with values, and passes through it.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "switchyard/base/options.h"
#include "switchyard/contract/state.h"
#include "switchyard/models/decoder.h"
#include "tests/support.h"

namespace switchyard::testing {

inline ModelOptions model_options(const std::string& yaml) { return read_options<ModelOptions>(parse_yaml(yaml, "test")); }

/// Initialised from a fixed seed. `spread` widens the initial weights so that small models are not nearly linear.
inline std::shared_ptr<Decoder> make_decoder(const std::string& yaml, at::ScalarType type = at::kDouble, double spread = 10) {
  auto decoder = std::make_shared<Decoder>(model_options(yaml));
  initialise(decoder->schema(), Streams(3), type);
  at::NoGradGuard guard;
  for (const Parameter& parameter : decoder->schema().all())
    if (parameter.spec().init.kind == Init::Kind::computed) continue;  // a table says something
    else if (parameter.tensor().dim() > 1) parameter.tensor().mul_(spread);
    else parameter.tensor().add_(randn(parameter.tensor().sizes(), stable_hash(parameter.name()), type), 0.1);
  return decoder;
}

inline at::Tensor some_ids(int64_t rows, int64_t vocabulary, uint64_t seed = 11) {
  return Streams(seed).integers(vocabulary, {rows}, {.purpose = "test"});
}

/// Logits of whole segments of the given lengths.
inline at::Tensor run_logits(const Decoder& decoder, const at::Tensor& ids, const std::vector<int64_t>& lengths,
                             Phase phase = Phase::evaluate, Records* records = nullptr) {
  Segments segments;
  for (int64_t length : lengths) segments.begin.push_back(segments.begin.back() + length);
  const Facts facts(segments);
  const Streams random(5);
  RoutedStore routed;
  const Context context{.facts = facts, .random = random, .phase = phase, .records = records, .routed = &routed};
  return decoder.logits(decoder.forward(ids, context), context);
}

/// Logits of the next rows of running sequences: segment s holds lengths[s] new rows of sequence s.
inline at::Tensor run_cached(const Decoder& decoder, const at::Tensor& ids, const std::vector<int64_t>& lengths,
                             const std::vector<int64_t>& past, StateStore& state, const std::vector<int64_t>& sequence = {}) {
  Segments segments;
  for (int64_t length : lengths) segments.begin.push_back(segments.begin.back() + length);
  segments.past = past;
  segments.sequence = sequence;
  const Facts facts(segments);
  const Streams random(5);
  RoutedStore routed;
  const Context context{.facts = facts, .random = random, .phase = Phase::generate, .routed = &routed, .state = &state};
  return decoder.logits(decoder.forward(ids, context), context);
}

}  // namespace switchyard::testing
