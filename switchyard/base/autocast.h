// libtorch's autocast on the CPU. Its own header costs six seconds in every source that includes it; only autocast.cpp does.
#pragma once

#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

namespace switchyard {

/// Autocast's settings. cached: casts of weights are kept until the outermost guard of libtorch ends; a cast that was made
/// without gradient would then be found by somebody who needs one, so whoever mixes the two turns that off.
struct Autocast {
  bool enabled = false;
  c10::ScalarType type = c10::ScalarType::BFloat16;
  bool cached = false;

  static Autocast now(c10::DeviceType device = c10::DeviceType::CPU);
  void set() const;
};

/// Autocast as `wanted` while it lives, then as it was.
class AutocastScope {
 public:
  explicit AutocastScope(const Autocast& wanted);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  Autocast before_;
};

}  // namespace switchyard
