#include "switchyard/data/batch.h"

#include "switchyard/models/decoder.h"

namespace switchyard {

at::Tensor hidden_rows(const Decoder& model, const Batch& batch, const Context& context, std::vector<at::Tensor>* hidden) {
  if (!model.encodes()) return model.forward(batch.ids, context, hidden);
  const bool own = !batch.source.defined();
  Facts source(own ? context.facts.segments : batch.source_segments);
  const Memory memory = model.encode(own ? batch.ids : batch.source, context.with(source));
  Facts facts = context.facts;
  set_memory(facts, memory);
  return model.forward(batch.ids, context.with(facts), hidden);
}

}  // namespace switchyard
