// The metadata of a GGUF file: names with typed values, in the order of the file. Tokenizer vocabularies, chat templates and
// a model's sizes are read from here and written here. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace switchyard {

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };
const char* to_string(GgufType type);

struct GgufValue;

/// Values of one type. Integers and booleans are kept as 64 bits wide as their sign needs, floats as double.
struct GgufArray {
  GgufType element = GgufType::u8;
  std::variant<std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>, std::vector<std::string>, std::vector<GgufArray>> items;
  size_t size() const;
};

/// One value with the type that the file gives it, so that it is written again as it was.
struct GgufValue {
  GgufType type = GgufType::u8;
  std::variant<uint64_t, int64_t, double, std::string, GgufArray> value;  ///< a boolean is 0 or 1

  static GgufValue u32(uint32_t value) { return {GgufType::u32, uint64_t{value}}; }
  static GgufValue i32(int32_t value) { return {GgufType::i32, int64_t{value}}; }
  static GgufValue u64(uint64_t value) { return {GgufType::u64, value}; }
  static GgufValue u16(uint16_t value) { return {GgufType::u16, uint64_t{value}}; }
  static GgufValue f32(float value) { return {GgufType::f32, double{value}}; }
  static GgufValue flag(bool value) { return {GgufType::boolean, uint64_t{value}}; }
  static GgufValue text(std::string value) { return {GgufType::text, std::move(value)}; }
  static GgufValue texts(std::vector<std::string> values) { return {GgufType::array, GgufArray{GgufType::text, std::move(values)}}; }
  static GgufValue floats(std::vector<double> values) { return {GgufType::array, GgufArray{GgufType::f32, std::move(values)}}; }
  static GgufValue flags(std::vector<uint64_t> values) { return {GgufType::array, GgufArray{GgufType::boolean, std::move(values)}}; }
  static GgufValue bytes(const std::string& text) { return {GgufType::array, GgufArray{GgufType::u8, std::vector<uint64_t>(reinterpret_cast<const uint8_t*>(text.data()), reinterpret_cast<const uint8_t*>(text.data()) + text.size())}}; }
  static GgufValue ints(std::vector<int64_t> values) { return {GgufType::array, GgufArray{GgufType::i32, std::move(values)}}; }
};

/// The getters without a default throw formats.gguf.missing_key with the nearest key; all of them throw formats.gguf.key_type
/// when the value is of another kind. Integers are taken from any integer type that holds them, numbers from integers too.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  /// source: the file's name, for messages.
  explicit GgufMetadata(std::string source) : source_(std::move(source)) {}

  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }
  const std::string& source() const { return source_; }
  /// Null when there is no such key.
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// Adds or replaces.
  void set(std::string_view key, GgufValue value);
  void erase(std::string_view key);

  int64_t integer(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t otherwise) const;
  double number(std::string_view key) const;
  double number(std::string_view key, double otherwise) const;
  bool flag(std::string_view key) const;
  bool flag(std::string_view key, bool otherwise) const;
  const std::string& text(std::string_view key) const;
  std::string text(std::string_view key, std::string_view otherwise) const;
  const std::vector<std::string>& texts(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<int64_t> flags(std::string_view key) const;  ///< 0 or 1

 private:
  const GgufValue& at(std::string_view key) const;

  std::string source_;
  std::vector<std::pair<std::string, GgufValue>> entries_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace switchyard
