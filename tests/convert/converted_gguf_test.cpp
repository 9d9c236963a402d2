// Exports beside what llama.cpp's converter made of the same folders (tests/golden/gguf/record_converted.py).
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <set>
#include <string>

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

/// As record_converted.py has it.
nlohmann::json type_of(const GgufValue& value) {
  static const std::map<GgufType, std::string> names{{GgufType::u32, "UINT32"}, {GgufType::i32, "INT32"}, {GgufType::f32, "FLOAT32"},
                                                     {GgufType::boolean, "BOOL"}, {GgufType::text, "STRING"}};
  if (const auto* array = std::get_if<GgufArray>(&value.value)) return "ARRAY/" + names.at(array->element);
  return names.at(value.type);
}

nlohmann::json value_of(const GgufValue& value) {
  if (value.type == GgufType::boolean) return std::get<uint64_t>(value.value) != 0;
  return std::visit([](const auto& held) -> nlohmann::json {
    if constexpr (std::is_same_v<std::decay_t<decltype(held)>, GgufArray>) {
      nlohmann::json items = nlohmann::json::array();
      std::visit([&](const auto& list) {
        for (const auto& item : list)
          if constexpr (!std::is_same_v<std::decay_t<decltype(item)>, GgufArray>)
            items.push_back(held.element == GgufType::boolean ? nlohmann::json(item != decltype(item){}) : nlohmann::json(item));
      }, held.items);
      return items;
    } else {
      return held;
    }
  }, value.value);
}

TEST(ConvertedGguf, MetadataAndTensorsAreTheConverters) {
  // Where the converter counts with sizes of published models, which these small ones do not have, or was told another config.
  // It also has it that hybrids do not turn queries, which the recorded one does; files of those that do not set no bound to their context.
  const std::set<std::string> others{"ernie4_5-moe.expert_shared_feed_forward_length", "hunyuan-moe.rope.freq_base",
                                     "granitehybrid.rope.scaling.finetuned", "granitehybrid.context_length"};
  int64_t compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden("gguf/converted"))) {
    const std::string family = entry.path().stem().string();
    SCOPED_TRACE(family);
    const nlohmann::json recorded = nlohmann::json::parse(read_file(entry.path()));
    const GgufView view = gguf_view(parse_json(read_file(golden(family) / "config.json"), family), open_weights(golden(family)));
    for (const auto& [key, row] : recorded["metadata"].items()) {
      if (others.contains(key)) continue;
      const GgufValue* mine = view.metadata.find(key);
      ASSERT_NE(mine, nullptr) << key;
      EXPECT_EQ(type_of(*mine), row["type"]) << key;
      EXPECT_EQ(value_of(*mine), row["value"]) << key;
    }
    EXPECT_EQ(view.weights->tensors().size(), recorded["tensors"].size());
    for (const TensorInfo& info : view.weights->tensors()) {
      ASSERT_TRUE(recorded["tensors"].contains(info.name)) << info.name;
      const nlohmann::json& row = recorded["tensors"][info.name];
      EXPECT_EQ(info.dtype, row["type"]) << info.name;
      EXPECT_EQ(nlohmann::json(info.shape), row["shape"]) << info.name;
      const at::Tensor tensor = view.weights->get(info.name).contiguous();
      EXPECT_EQ(fmt::format("{:016x}", stable_hash({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()})), row["hash"]) << info.name;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 15);
}

}  // namespace
}  // namespace switchyard
