// What a template may use: steps, memory, output and depth. A hostile template is stopped with a clear error instead of
// hanging or eating memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <fmt/format.h>

namespace switchyard::jinja {

/// What is thrown inside the engine; located by the evaluator, and turned into a TemplateError at the surface.
struct Fault {
  std::string code;     ///< "template.type"
  std::string reason;   ///< "'missing' is undefined"
  int line = 0;         ///< 0 = not known yet
  std::string expression;
};

template <typename... Args>
[[noreturn]] void fault(const char* code, fmt::format_string<Args...> text, Args&&... args) {
  throw Fault{code, fmt::format(text, std::forward<Args>(args)...)};
}

struct Limits {
  int64_t steps = 20'000'000;           ///< expressions, statements and items; long texts count as several
  int64_t memory = int64_t{256} << 20;  ///< bytes of values alive at once
  int64_t text = int64_t{64} << 20;     ///< bytes of one text, and of the output
  int64_t range = 100'000;              ///< numbers in a range
  int depth = 600;                      ///< expressions, blocks, macro calls inside each other
};

class Budget {
 public:
  explicit Budget(const Limits& limits) : limits(limits) {}
  void step(int64_t count = 1) {
    if ((steps_ += count) > limits.steps) [[unlikely]]
      fault("template.limit", "the template takes more than {} steps", limits.steps);
  }
  /// The work of touching so many bytes.
  void touch(size_t bytes) {
    if (bytes > 256) step(static_cast<int64_t>(bytes / 256));
  }
  /// Called while a text grows: its bytes so far.
  void room(uint64_t bytes) const {
    if (bytes > static_cast<uint64_t>(limits.text)) [[unlikely]]
      fault("template.limit", "the template makes a text of more than {} bytes", limits.text);
  }
  /// Called before a text of so many bytes is made.
  void text(uint64_t bytes) {
    room(bytes);
    touch(bytes);
  }
  /// Called before a list of so many values is made.
  void values(uint64_t count) {
    if (count > static_cast<uint64_t>(limits.memory) / 64) [[unlikely]]
      fault("template.limit", "the template makes a list of {} values, more than memory allows", count);
    step(static_cast<int64_t>(count / 8));
  }
  void take(size_t bytes) {
    if ((memory_ += static_cast<int64_t>(bytes)) > limits.memory) [[unlikely]] {
      memory_ -= static_cast<int64_t>(bytes);
      fault("template.limit", "the template's values need more than {} bytes of memory", limits.memory);
    }
  }
  void give_back(size_t bytes) { memory_ -= static_cast<int64_t>(bytes); }
  void enter() {
    if (++depth_ > limits.depth) [[unlikely]] {
      --depth_;
      fault("template.limit", "the template nests more than {} levels deep", limits.depth);
    }
  }
  void leave() { --depth_; }

  const Limits limits;

 private:
  int64_t steps_ = 0, memory_ = 0;
  int depth_ = 0;
};

/// One level deeper until destroyed.
class Level {
 public:
  explicit Level(Budget& budget) : budget_(budget) { budget.enter(); }
  ~Level() { budget_.leave(); }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  Budget& budget_;
};

}  // namespace switchyard::jinja
