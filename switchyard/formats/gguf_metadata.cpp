#include "switchyard/formats/gguf_metadata.h"

#include <array>

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"

namespace switchyard {
namespace {

[[noreturn]] void fail_type(const std::string& source, std::string_view key, const GgufValue& value, const char* wanted) {
  fail("formats.gguf.key_type", "{}: '{}' is {} {}, but {} is needed", source, key,
       value.type == GgufType::array ? "a list of type" : "a value of type",
       to_string(value.type == GgufType::array ? std::get<GgufArray>(value.value).element : value.type), wanted);
}

bool is_integer(GgufType type) {
  return type != GgufType::f32 && type != GgufType::f64 && type != GgufType::boolean && type <= GgufType::f64 &&
         type != GgufType::text && type != GgufType::array;
}

}  // namespace

const char* to_string(GgufType type) {
  static constexpr std::array kNames{"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "text", "list", "u64", "i64", "f64"};
  return static_cast<size_t>(type) < kNames.size() ? kNames[static_cast<size_t>(type)] : "unknown";
}

size_t GgufArray::size() const {
  return std::visit([](const auto& list) { return list.size(); }, items);
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = index_.find(std::string(key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

void GgufMetadata::set(std::string_view key, GgufValue value) {
  const auto [place, fresh] = index_.emplace(key, entries_.size());
  if (fresh) entries_.emplace_back(key, std::move(value));
  else entries_[place->second].second = std::move(value);
}

void GgufMetadata::erase(std::string_view key) {
  const auto found = index_.find(std::string(key));
  if (found == index_.end()) return;
  const size_t at = found->second;
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(at));
  index_.erase(found);
  for (auto& [name, place] : index_) place -= place > at;
}

const GgufValue& GgufMetadata::at(std::string_view key) const {
  if (const GgufValue* value = find(key)) return *value;
  std::vector<std::string> keys;
  for (const auto& [name, value] : entries_) keys.push_back(name);
  const std::string near = nearest(key, keys);
  fail("formats.gguf.missing_key", "{} has no metadata '{}'{}", source_, key, near.empty() ? "" : "; the nearest key is '" + near + "'");
}

int64_t GgufMetadata::integer(std::string_view key) const {
  const GgufValue& value = at(key);
  if (!is_integer(value.type)) fail_type(source_, key, value, "an integer");
  if (const int64_t* number = std::get_if<int64_t>(&value.value)) return *number;
  const uint64_t number = std::get<uint64_t>(value.value);
  check(number <= INT64_MAX, "formats.gguf.key_type", "{}: '{}' is {}, too large a number", source_, key, number);
  return static_cast<int64_t>(number);
}

double GgufMetadata::number(std::string_view key) const {
  const GgufValue& value = at(key);
  if (const double* number = std::get_if<double>(&value.value)) return *number;
  if (!is_integer(value.type)) fail_type(source_, key, value, "a number");
  return static_cast<double>(integer(key));
}

bool GgufMetadata::flag(std::string_view key) const {
  const GgufValue& value = at(key);
  if (value.type != GgufType::boolean) fail_type(source_, key, value, "a truth value");
  return std::get<uint64_t>(value.value) != 0;
}

const std::string& GgufMetadata::text(std::string_view key) const {
  const GgufValue& value = at(key);
  if (value.type != GgufType::text) fail_type(source_, key, value, "a text");
  return std::get<std::string>(value.value);
}

const std::vector<std::string>& GgufMetadata::texts(std::string_view key) const {
  const GgufValue& value = at(key);
  const GgufArray* list = std::get_if<GgufArray>(&value.value);
  if (list == nullptr || list->element != GgufType::text) fail_type(source_, key, value, "a list of texts");
  return std::get<std::vector<std::string>>(list->items);
}

std::vector<int64_t> GgufMetadata::integers(std::string_view key) const {
  const GgufValue& value = at(key);
  const GgufArray* list = std::get_if<GgufArray>(&value.value);
  if (list == nullptr || !is_integer(list->element)) fail_type(source_, key, value, "a list of integers");
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&list->items)) return *numbers;
  std::vector<int64_t> numbers;
  for (const uint64_t number : std::get<std::vector<uint64_t>>(list->items)) {
    check(number <= INT64_MAX, "formats.gguf.key_type", "{}: '{}' holds {}, too large a number", source_, key, number);
    numbers.push_back(static_cast<int64_t>(number));
  }
  return numbers;
}

std::vector<int64_t> GgufMetadata::flags(std::string_view key) const {
  const GgufValue& value = at(key);
  const GgufArray* list = std::get_if<GgufArray>(&value.value);
  if (list == nullptr || list->element != GgufType::boolean) fail_type(source_, key, value, "a list of truth values");
  const auto& values = std::get<std::vector<uint64_t>>(list->items);
  return {values.begin(), values.end()};
}

std::vector<double> GgufMetadata::numbers(std::string_view key) const {
  const GgufValue& value = at(key);
  const GgufArray* list = std::get_if<GgufArray>(&value.value);
  if (list != nullptr)
    if (const auto* numbers = std::get_if<std::vector<double>>(&list->items)) return *numbers;
  if (list == nullptr || !is_integer(list->element)) fail_type(source_, key, value, "a list of numbers");
  std::vector<double> numbers;
  for (const int64_t number : integers(key)) numbers.push_back(static_cast<double>(number));
  return numbers;
}

int64_t GgufMetadata::integer(std::string_view key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
double GgufMetadata::number(std::string_view key, double otherwise) const { return has(key) ? number(key) : otherwise; }
bool GgufMetadata::flag(std::string_view key, bool otherwise) const { return has(key) ? flag(key) : otherwise; }
std::string GgufMetadata::text(std::string_view key, std::string_view otherwise) const {
  return has(key) ? text(key) : std::string(otherwise);
}

}  // namespace switchyard
