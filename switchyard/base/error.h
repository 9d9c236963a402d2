// The one exception type. Every failure that a caller can meet carries a stable dotted code
// ("options.unknown_key") and a message with the place, the values found and the way out.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace switchyard {

class Error : public std::runtime_error {
 public:
  /// what() is "[code] message".
  Error(std::string code, const std::string& message);

  /// Stable, dotted, lower case: "data.empty".
  const std::string& code() const { return code_; }
  /// The text after the code.
  const std::string& message() const { return message_; }

 private:
  std::string code_;
  std::string message_;
};

[[noreturn]] void throw_error(std::string_view code, std::string message);

/// fail("data.empty", "{} holds no document", path);
template <typename... Args>
[[noreturn]] void fail(std::string_view code, fmt::format_string<Args...> text, Args&&... args) {
  throw_error(code, fmt::format(text, std::forward<Args>(args)...));
}

/// check(k <= experts, "routing.k_range", "k is {}, but the layer has {} experts", k, experts);
template <typename... Args>
void check(bool holds, std::string_view code, fmt::format_string<Args...> text, Args&&... args) {
  if (!holds) [[unlikely]]
    throw_error(code, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace switchyard
