#include "switchyard/base/memory.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace switchyard {
namespace {

/// Kilobytes of files that this process has in memory; 0 where the system does not say.
int64_t resident_files() {
  std::ifstream status("/proc/self/status");
  std::string name, rest;
  for (int64_t kilobytes = 0; status >> name; std::getline(status, rest))
    if (name == "RssFile:") return status >> kilobytes ? kilobytes : 0;
  return 0;
}

TEST(Memory, CodeThatIsGivenBackComesBackWhenItIsNeeded) {
  const int64_t before = resident_files();
  if (before == 0) GTEST_SKIP() << "the system does not say how much of files a process has in memory";
  give_back_code();
  EXPECT_LT(resident_files(), before);
  EXPECT_GT(available_memory(), 0);
  EXPECT_EQ(std::stod("0.5"), 0.5);  // other libraries than ours
}

}  // namespace
}  // namespace switchyard
