// Exports beside what llama.cpp's converter made of the same folders (tests/golden/gguf/record_converted.py).
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "switchyard/base/files.h"
#include "switchyard/base/random.h"
#include "switchyard/formats/quantised.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/models/families/gguf/file_view.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::golden;

nlohmann::json recorded_value(const GgufValue& value) {
  if (value.type == GgufType::boolean) return std::get<uint64_t>(value.value) != 0;
  if (const auto* array = std::get_if<GgufArray>(&value.value)) {
    nlohmann::json list = nlohmann::json::array();
    if (const auto* numbers = std::get_if<std::vector<int64_t>>(&array->items))
      for (const int64_t number : *numbers) list.push_back(number);
    else
      for (const uint64_t number : std::get<std::vector<uint64_t>>(array->items)) list.push_back(array->element == GgufType::boolean ? nlohmann::json(number != 0) : nlohmann::json(number));
    return list;
  }
  return std::visit([](const auto& held) -> nlohmann::json {
    if constexpr (std::is_same_v<std::decay_t<decltype(held)>, GgufArray>) return nullptr;
    else return held;
  }, value.value);
}

TEST(ConvertedGguf, MetadataAndBytesAreTheConverters) {
  for (const std::string family : {"granitemoe", "granitemoeshared", "granitemoehybrid", "llama4", "qwen3_next", "jamba", "t5"}) {
    SCOPED_TRACE(family);
    const nlohmann::json recorded = nlohmann::json::parse(read_file(golden("gguf/converted/" + family + ".json")));
    const Node config = parse_json(read_file(golden(family + "/config.json")), family);
    const GgufView view = gguf_view(config, open_weights(golden(family)));
    for (const auto& [key, row] : recorded["metadata"].items()) {
      // The converter has it that hybrids do not turn queries, which this one does; such files have no bound to their context there.
      if (family == "granitemoehybrid" && (key.ends_with(".finetuned") || key.ends_with(".context_length"))) continue;
      const GgufValue* mine = view.metadata.find(key);
      ASSERT_NE(mine, nullptr) << key;
      EXPECT_EQ(recorded_value(*mine), row["value"]) << key;
    }
    ASSERT_EQ(view.weights->tensors().size(), recorded["tensors"].size());
    for (const auto& [name, row] : recorded["tensors"].items()) {
      ASSERT_TRUE(view.weights->has(name)) << name;
      const at::Tensor tensor = view.weights->get(name).contiguous();
      EXPECT_EQ(tensor.sizes().vec(), row["shape"].get<std::vector<int64_t>>()) << name;
      const std::string_view bytes(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
      EXPECT_EQ(fmt::format("{:016x}", stable_hash(bytes)), row["hash"].get<std::string>()) << name;
    }
  }
}

}  // namespace
}  // namespace switchyard
