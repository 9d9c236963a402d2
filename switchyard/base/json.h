// nlohmann's JSON values for sources that read and write them: its parser and its writer are templates of a second and a half each,
// compiled once here. (Trees of options, with lines and hints, are base/node.h.)
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace switchyard {

/// The value as text: on one line, or with `indent` spaces a level. Bytes that are no UTF-8 become U+FFFD.
std::string json_text(const nlohmann::json& value, int indent = -1);
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);

/// The value that `text` holds. Throws nlohmann::json::parse_error.
nlohmann::json json_from(std::string_view text);
nlohmann::ordered_json ordered_json_from(std::string_view text);

/// The same; a text that is no JSON gives a value whose is_discarded() holds.
nlohmann::json json_if_valid(std::string_view text);
nlohmann::ordered_json ordered_json_if_valid(std::string_view text);

/// What is wrong with a text, for a message: at most 200 printable characters, without the library's own tag.
std::string json_fault(const nlohmann::detail::exception& error);

}  // namespace switchyard
