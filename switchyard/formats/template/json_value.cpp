#include "switchyard/formats/template/json_value.h"

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"

namespace switchyard::jinja {
namespace {

class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(std::string_view source) : source_(source) {}

  bool null() override { return put(Value::none()); }
  bool boolean(bool value) override { return put(Value::boolean(value)); }
  bool number_integer(number_integer_t value) override { return put(Value::integer(value)); }
  bool number_unsigned(number_unsigned_t value) override { return put(Value::integer(value)); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") != std::string::npos) return put(Value::real(value));
    return put(integer(text));
  }
  bool string(string_t& value) override { return put(Value::text(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(std::make_shared<Dict>(), Value::Kind::dict); }
  bool start_array(std::size_t) override { return open(std::make_shared<Sequence>(), Value::Kind::list); }
  bool key(string_t& value) override {
    open_.back().key = value;
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    fail("template.json", "{}: no valid JSON at byte {}: {}", source_, position, json_fault(error));
  }

  Value take() { return std::move(result_); }

 private:
  struct Open {
    std::shared_ptr<Object> object;
    Value::Kind kind;
    std::string key;
  };

  /// A number that nlohmann takes for a real because 64 bits do not hold it.
  Value integer(const std::string& text) const {
    check(text.size() <= 4300, "template.json", "{}: an integer has {} digits, more than 4300", source_, text.size());
    Integer value = 0;
    bool fits = true;
    for (char c : text) {
      if (c == '-') continue;
      fits = fits && !__builtin_mul_overflow(value, static_cast<Integer>(10), &value) && !__builtin_add_overflow(value, static_cast<Integer>(c - '0'), &value);
    }
    if (fits) return Value::integer(text[0] == '-' ? -value : value);
    return {Value::Kind::big, std::make_shared<String>(text)};
  }

  bool open(std::shared_ptr<Object> object, Value::Kind kind) {
    check(static_cast<int>(open_.size()) < kMaxDepth, "template.json", "{}: lists and objects nest more than {} levels deep", source_, kMaxDepth);
    open_.push_back({std::move(object), kind, {}});
    return true;
  }
  bool close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    done.object->depth += 1;
    return put({done.kind, std::move(done.object)});
  }
  bool put(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
      return true;
    }
    Open& into = open_.back();
    into.object->depth = std::max(into.object->depth, value.depth());
    into.object->weight += value.object() ? value.object()->weight + (value.is_string() ? static_cast<int64_t>(value.str().size() / 64) : 0) : 1;
    if (into.kind == Value::Kind::list) static_cast<Sequence&>(*into.object).items.push_back(std::move(value));
    else static_cast<Dict&>(*into.object).set(Value::text(into.key), std::move(value));
    return true;
  }

  std::string_view source_;
  std::vector<Open> open_;
  Value result_;
};

}  // namespace

Value from_json(std::string_view text, std::string_view source) {
  Reader reader(source);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.take();
}

}  // namespace switchyard::jinja
