#include "switchyard/base/json.h"

#include <algorithm>

namespace switchyard {
namespace {

template <class Json>
std::string text_of(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string json_text(const nlohmann::json& value, int indent) { return text_of(value, indent); }
std::string json_text(const nlohmann::ordered_json& value, int indent) { return text_of(value, indent); }

nlohmann::json json_from(std::string_view text) { return nlohmann::json::parse(text); }
nlohmann::ordered_json ordered_json_from(std::string_view text) { return nlohmann::ordered_json::parse(text); }

nlohmann::json json_if_valid(std::string_view text) { return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false); }
nlohmann::ordered_json ordered_json_if_valid(std::string_view text) {
  return nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string json_fault(const nlohmann::detail::exception& error) {
  std::string fault = error.what();
  if (const size_t tag = fault.find("] "); fault.starts_with("[") && tag != std::string::npos) fault.erase(0, tag + 2);
  if (fault.size() > 200) fault.resize(200);
  std::replace_if(fault.begin(), fault.end(), [](unsigned char c) { return c < 32 || c > 126; }, '?');
  return fault;
}

}  // namespace switchyard
