#include "program/input.h"

#include <iostream>
#include <iterator>

#include "switchyard/base/files.h"

namespace switchyard::program {

std::string read_input(const std::string& path, uint64_t limit) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  return read_file_or_pipe(path, limit);
}

}  // namespace switchyard::program
