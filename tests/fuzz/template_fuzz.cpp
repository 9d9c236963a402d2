#include "switchyard/formats/template/chat_template.h"
#include "switchyard/formats/template/json_value.h"
#include "tests/fuzz/target.h"

namespace {

/// A template, and behind a zero byte its variables; without one, some of every kind.
void chat_template(std::string_view bytes) {
  using namespace switchyard;
  static const std::string kVariables = R"({"messages": [{"role": "user", "content": "hé"}, {"role": "assistant", "content": null,
    "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, true, null]}}}]}], "tools": null, "n": 3, "f": 1.5, "s": " Text ",
    "l": [3, 1, 2], "d": {"b": 1, "a": [1, {"x": "y"}]}, "big": 123456789012345678901234567890123456789012345, "add_generation_prompt": true})";
  const size_t zero = bytes.find('\0');
  const std::string variables(zero == std::string_view::npos ? std::string_view(kVariables) : bytes.substr(zero + 1));
  const jinja::Value values = jinja::from_json(variables, "variables");
  ChatTemplate::parse(bytes.substr(0, zero)).render(values, {.now = jinja::Clock{}, .limits = {.steps = 20'000, .memory = 8 << 20, .text = 1 << 20}});
}

}  // namespace

SWITCHYARD_FUZZ_TARGET(chat_template, {"templates"})
