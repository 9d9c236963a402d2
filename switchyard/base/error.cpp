#include "switchyard/base/error.h"

namespace switchyard {

Error::Error(std::string code, const std::string& message)
    : std::runtime_error("[" + code + "] " + message), code_(std::move(code)), message_(message) {}

void throw_error(std::string_view code, std::string message) {
  throw Error(std::string(code), message);
}

}  // namespace switchyard
