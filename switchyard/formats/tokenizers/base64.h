// Base64 (RFC 4648), in which tokenizer files carry bytes.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

/// Throws tokenizer.format, naming `place`, for what is no base64.
std::string from_base64(std::string_view text, std::string_view place);

}  // namespace switchyard
