#include <cstdio>
#include <cstdlib>

#include "program/verb.h"

int main(int argc, char** argv) {
  const int status = switchyard::program::run(switchyard::program::verbs(), argc, argv);
#ifdef NDEBUG
  // What was written is closed by now. Libtorch would go on to unregister thousands of operators, one by one, which takes a quarter of the time that a
  // short command takes.
  std::fflush(nullptr);
  std::_Exit(status);
#else
  return status;  // coverage and leaks are written at the end
#endif
}
