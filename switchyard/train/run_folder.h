// What a run leaves on disk, and where.
//
//   RUN/recipe.yaml                      the recipe as it ran, every value written out
//   RUN/metrics.jsonl                    one object a logged step; evaluations have "eval": true
//   RUN/routing.jsonl                    loads of every layer over training (see RoutingHistory below)
//   RUN/events.out.tfevents.*            the same scalars for TensorBoard
//   RUN/tokenizer/                       its tokenizer, as it was trained or taken over
//   RUN/checkpoints/step-00000500/       a model in Hugging Face layout (models/checkpoint.h); of its family, where it came from one
//   RUN/checkpoints/step-00000500/training/   optimiser.safetensors, state.json: what resume needs
//   RUN/report.html, RUN/report.json     written by inspect
//   RUN/run.lock                         held while training
//
// routing.jsonl, one line a logged step: {"step": 100, "layers": [{"site": "layers.1.feed_forward", "layer": 1,
// "experts": 8, "engaged": [E counts], "admitted": [E counts], "rows": N}]}, summed since the line before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace switchyard {

std::filesystem::path checkpoint_folder(const std::filesystem::path& run, int64_t step);
/// Complete checkpoints, oldest first: (step, folder). Half-written ones never carry this name.
std::vector<std::pair<int64_t, std::filesystem::path>> checkpoints(const std::filesystem::path& run);

}  // namespace switchyard
