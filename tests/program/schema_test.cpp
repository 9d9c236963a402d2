// The JSON schema of recipes, checked by a validator of the ecosystem.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switchyard/base/files.h"
#include "switchyard/base/node.h"
#include "tests/files.h"
#include "tests/house/tree.h"

namespace switchyard {
namespace {

using testing::Finished;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

const char* kValidate = R"(
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for path in sys.argv[2:]:
    errors = list(validator.iter_errors(json.load(open(path))))
    print(path, "refused: " + errors[0].message[:300] if errors else "accepted")
)";

class Schema : public ::testing::Test {
 protected:
  std::string write_schema() {
    const std::string path = (folder_ / "schema.json").string();
    const Finished made = testing::run_command("'" + std::string(SWITCHYARD_BINARY_DIR) +
                                               "/bin/switchyard' reference --schema > " + path);
    EXPECT_EQ(made.status, 0) << made.output;
    return path;
  }
  TemporaryFolder folder_;
};

TEST_F(Schema, AcceptsEveryRecipe) {
  SWITCHYARD_NEED_PYTHON(python, "jsonschema");
  std::string arguments = write_schema();
  int recipes = 0;
  for (const auto& path : testing::files_below(testing::root() / "recipes", {".yaml"})) {
    // Includes are laid together first: an editor sees one file at a time and
    // need not.
    const std::filesystem::path whole = folder_ / (std::to_string(recipes++) + ".json");
    write_file_atomically(whole, to_json(load_yaml(path.string())));
    arguments += " " + whole.string();
  }
  const Finished checked = testing::run_python(python, kValidate, arguments);
  EXPECT_EQ(checked.status, 0) << checked.output;
  EXPECT_EQ(checked.output.find("refused"), std::string::npos) << checked.output;
}

TEST_F(Schema, RefusesWhatTheReaderRefuses) {
  SWITCHYARD_NEED_PYTHON(python, "jsonschema");
  std::string arguments = write_schema();
  const std::vector<std::string> wrong{R"({"trian": {}})",
                                       R"({"train": {"steps": "ten"}})",
                                       R"({"train": {"steps": -1}})",
                                       R"({"model": {"norm": "batch"}})",
                                       R"({"model": {"mixtures": [{"router": "no-such-router"}]}})",
                                       R"({"model": {"mixtures": [{"router": {"type": "switch-top1", "k": 3}}]}})"};
  for (size_t i = 0; i < wrong.size(); ++i) {
    write_file_atomically(folder_ / ("wrong" + std::to_string(i)), wrong[i]);
    arguments += " " + (folder_ / ("wrong" + std::to_string(i))).string();
  }
  write_file_atomically(
      folder_ / "right",
      R"({"model": {"mixtures": [{"router": {"type": "switch-top1", "jitter": 0.1}}, {"router": "switch-top1"}]}})");
  const Finished checked = testing::run_python(python, kValidate, arguments + " " + (folder_ / "right").string());
  EXPECT_EQ(checked.status, 0) << checked.output;
  for (size_t i = 0; i < wrong.size(); ++i)
    EXPECT_THAT(checked.output, HasSubstr("wrong" + std::to_string(i) + " refused")) << checked.output;
  EXPECT_THAT(checked.output, HasSubstr("right accepted"));
}

}  // namespace
}  // namespace switchyard
