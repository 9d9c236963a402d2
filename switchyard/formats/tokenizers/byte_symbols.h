// The alphabet of byte-level tokenizers (GPT-2): a printable character for each byte, so that tokens are text.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

std::string_view byte_symbol(unsigned char byte);  ///< "Ġ" for a space
int byte_of_symbol(char32_t symbol);               ///< the byte, or -1

std::string to_byte_symbols(std::string_view bytes);
/// The bytes that a token's symbols stand for; a token with any other character stands for its own bytes.
std::string from_byte_symbols(std::string_view token);
void append_bytes_of_symbols(std::string_view token, std::string& bytes);

/// "<0x0A>", the token of a byte in tokenizers with byte fallback, and the byte of such a name or -1.
std::string byte_token(int byte);
int byte_of_token(std::string_view token);

}  // namespace switchyard
