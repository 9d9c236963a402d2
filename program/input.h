// What a verb reads: a file, a pipe, or standard input under the name "-".
#pragma once

#include <cstdint>
#include <string>

namespace switchyard::program {

/// All of it; throws what read_file throws.
std::string read_input(const std::string& path, uint64_t limit = uint64_t{1} << 32);

}  // namespace switchyard::program
