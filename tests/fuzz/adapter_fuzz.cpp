#include "switchyard/formats/peft/adapter_file.h"
#include "tests/fuzz/target.h"

namespace {

/// One pair of a LoRA of rank 2, all ones.
std::string some_tensors() {
  const std::string header = R"({"base_model.model.layers.0.q_proj.lora_A.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("base_model.model.layers.0.q_proj.lora_B.weight":{"dtype":"F32","shape":[3,2],"data_offsets":[24,48]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size() & 0xFF);
  bytes[1] = static_cast<char>(header.size() >> 8);
  bytes += header;
  for (int i = 0; i < 12; ++i) bytes += std::string_view("\0\0\x80\x3F", 4);
  return bytes;
}

/// A config, or tensors, or a config with a zero byte and tensors behind it; what is not given is stock.
void adapter(std::string_view bytes) {
  using namespace switchyard;
  static const std::string kConfig = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})", kTensors = some_tensors();
  std::string_view config = bytes, tensors = kTensors;
  if (!bytes.starts_with('{')) {
    config = kConfig;
    tensors = bytes;
  } else if (const size_t zero = bytes.find('\0'); zero != std::string_view::npos) {
    config = bytes.substr(0, zero);
    tensors = bytes.substr(zero + 1);
  }
  peft::read_adapter(fuzz::as_files({{"adapter_config.json", config}, {"adapter_model.safetensors", tensors}}));
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(adapter, {"peft/"})
