// A peft folder: adapter_config.json and adapter_model.safetensors, read to tensors by module and written back so that peft loads
// them. Nothing is known here about any model: modules have the names that the file gives them.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "switchyard/formats/peft/adapter_config.h"
#include "switchyard/formats/safetensors.h"

namespace switchyard::peft {

/// What stands beside one module. For a parameter of experts (target_parameters) a is [r·E, in], b [out, E·r].
struct ModuleTensors {
  at::Tensor a;          ///< lora_A [r, in]; of an embedding lora_embedding_A [r, V]
  at::Tensor b;          ///< lora_B [out, r]; of an embedding lora_embedding_B [D, r]
  at::Tensor b_bias;     ///< [out], with lora_bias
  at::Tensor magnitude;  ///< [out], with DoRA
  at::Tensor scale;      ///< (IA)^3: [out, 1] scales the output, [1, in] the input
  bool embedding = false;
};

struct AdapterFile {
  AdapterConfig config;
  std::string where;  ///< the folder, for messages
  std::vector<std::pair<std::string, ModuleTensors>> modules;  ///< "model.layers.0.self_attn.q_proj", in the order of the file
  /// Whole tensors of the model: trained copies (modules_to_save), biases, saved base embeddings. By the model's names.
  struct Whole {
    std::string name;    ///< "lm_head.weight"
    at::Tensor value;
    bool base = false;   ///< stored as a base layer's, not as a trained copy
  };
  std::vector<Whole> wholes;
  /// Rows of a table (trainable_token_indices) that stand for the base's own.
  struct Tokens {
    std::string module;  ///< "model.embed_tokens"
    at::Tensor rows;     ///< [n, D]
    std::vector<int64_t> ids;
  };
  std::vector<Tokens> tokens;
  /// X-LoRA: layers of the classifier [out, in] with [out], in order; and its adapters by name.
  std::vector<std::pair<at::Tensor, at::Tensor>> classifier;
  struct Named;
  std::vector<Named> experts;

  const ModuleTensors* find(std::string_view module) const;
};
struct AdapterFile::Named {
  std::string name;
  AdapterFile file;
};

/// Throws formats.peft.* (see adapter_config.h), formats.peft.tensor (a name or shape that belongs to nothing, a half of a pair,
/// a type that is no float), formats.peft.not_finite, formats.peft.pickle, formats.safetensors.*. expert_folders: where the
/// adapters of an X-LoRA are, when not in folders of their names beside its config.
AdapterFile read_adapter(const std::filesystem::path& folder,
                         const std::map<std::string, std::filesystem::path>& expert_folders = {});

/// Writes the folder atomically; the names are those that peft gives. Throws file.write.
void write_adapter(const std::filesystem::path& folder, const AdapterFile& adapter);

}  // namespace switchyard::peft
