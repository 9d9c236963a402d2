// What tests against recordings share.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "switchyard/infer/named_outputs.h"

namespace switchyard::testing {

/// The tensor of a name; fails the test when there is none.
inline at::Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [known, tensor] : tensors)
    if (known == name) return tensor;
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

}  // namespace switchyard::testing
