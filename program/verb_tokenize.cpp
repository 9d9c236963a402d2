// switchyard tokenize: texts to token ids and back, line by line.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

#include "program/input.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/formats/utf8.h"

namespace switchyard::program {

namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string tokenizer, input, output, text;
  bool has_text = false;
};

bool flag(const nlohmann::json& line, const char* key, bool otherwise) {
  if (!line.contains(key) || line[key].is_null()) return otherwise;
  check(line[key].is_boolean(), "tokenize.input", "\"{}\" is neither true nor false", key);
  return line[key].get<bool>();
}

std::string text_of(const nlohmann::json& value, const char* key) {
  check(value.is_string(), "tokenize.input", "\"{}\" is no text", key);
  return value.get<std::string>();
}

/// Bytes written in hexadecimal, for texts that are no UTF-8.
std::string unhex(const std::string& digits) {
  check(digits.size() % 2 == 0 && digits.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos, "tokenize.input",
        "\"bytes_hex\" is not pairs of hexadecimal digits");
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

std::vector<int64_t> ids_of(const nlohmann::json& value, const char* key) {
  check(value.is_array(), "tokenize.input", "\"{}\" is no list of ids", key);
  std::vector<int64_t> ids;
  for (const auto& id : value) {
    check(id.is_number_unsigned() && id.get<uint64_t>() < uint64_t{1} << 31, "tokenize.input", "\"{}\" holds {}, which is no id", key, json_text(id));
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

/// One object as a line of JSON, written as it comes: a tree of what a long text gives would need hundreds of bytes a token.
class Row {
 public:
  void text(std::string_view key, const std::string& value) {
    begin(key);
    quote(value);
  }
  template <typename Items, typename Write>
  void list(std::string_view key, const Items& items, Write&& write) {
    begin(key);
    char before = '[';
    for (const auto& item : items) {
      line_ += std::exchange(before, ',');
      write(item);
    }
    line_ += items.empty() ? "[]" : "]";
  }
  void number(int64_t value) {
    char digits[20];
    const char* end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
    line_.append(digits, static_cast<size_t>(end - digits));
  }
  void pair(int64_t first, int64_t second) {
    line_ += '[';
    number(first);
    line_ += ',';
    number(second);
    line_ += ']';
  }
  void quote(const std::string& value) {
    if (!utf8_valid(value)) {
      line_ += json_text(Json(value));
      return;
    }
    line_ += '"';
    size_t from = 0;
    for (size_t i = 0; i < value.size(); ++i) {
      const auto c = static_cast<unsigned char>(value[i]);
      if (c >= ' ' && c != '"' && c != '\\') continue;
      line_.append(value, from, i - from);
      from = i + 1;
      escape(c);
    }
    (line_.append(value, from)) += '"';
  }
  std::string take() && { return std::move(line_) + "}"; }

 private:
  void escape(unsigned char c) {
    constexpr std::string_view kNamed = "\"\\\b\t\n\f\r", kNames = "\"\\btnfr";
    const size_t name = kNamed.find(static_cast<char>(c));
    line_ += '\\';
    if (name != std::string_view::npos) line_ += kNames[name];
    else fmt::format_to(std::back_inserter(line_), "u{:04x}", c);
  }
  void begin(std::string_view key) { fmt::format_to(std::back_inserter(line_), "{}\"{}\":", line_.empty() ? '{' : ',', key); }
  std::string line_;
};

std::string encoded(const Tokenizer& tokenizer, const nlohmann::json& line) {
  const EncodeOptions options{.add_special = flag(line, "add_special", true), .parse_special = flag(line, "parse_special", true)};
  const std::string text = line.contains("bytes_hex") ? unhex(text_of(line["bytes_hex"], "bytes_hex")) : text_of(line["text"], "text");
  const bool pair = line.contains("pair") && !line["pair"].is_null();
  const Encoding encoding = pair ? tokenizer.encode_pair(text, text_of(line["pair"], "pair"), options) : tokenizer.encode(text, options);
  Row row;
  const auto number = [&](int64_t value) { row.number(value); };
  row.list("ids", encoding.ids, number);
  row.list("tokens", encoding.tokens, [&](const std::string& token) { row.quote(token); });
  row.list("offsets", encoding.offsets, [&](const std::pair<int64_t, int64_t>& place) { row.pair(place.first, place.second); });
  row.list("type_ids", encoding.type_ids, number);
  row.list("special_mask", encoding.special_mask, number);
  const std::string whole = tokenizer.decode(encoding.ids, false);
  const bool special = std::any_of(encoding.ids.begin(), encoding.ids.end(), [&](int64_t id) { return tokenizer.special(id); });
  row.text("decoded", whole);
  row.text("decoded_skip_special", special ? tokenizer.decode(encoding.ids, true) : whole);
  return std::move(row).take();
}

Json decoded(const Tokenizer& tokenizer, const nlohmann::json& line, const std::vector<int64_t>& ids) {
  if (!flag(line, "stream", false)) {
    Json tokens = Json::array();
    for (const int64_t id : ids) tokens.push_back(id < tokenizer.vocabulary() ? Json(tokenizer.token(id)) : Json());
    return {{"ids", ids}, {"tokens", tokens}, {"decoded", tokenizer.decode(ids, false)}, {"decoded_skip_special", tokenizer.decode(ids, true)}};
  }
  const std::vector<int64_t> shown = line.contains("prompt_ids") && !line["prompt_ids"].is_null() ? ids_of(line["prompt_ids"], "prompt_ids") : std::vector<int64_t>();
  TextStream stream(tokenizer, flag(line, "skip_special", true), shown);
  Json parts = Json::array();
  for (const int64_t id : ids) parts.push_back(stream.push(id));
  return {{"emit", parts}, {"flush", stream.flush()}};
}

std::string answer(const Tokenizer& tokenizer, const nlohmann::json& line) {
  check(line.is_object(), "tokenize.input", "a line is no object");
  if (line.contains("text") || line.contains("bytes_hex")) return encoded(tokenizer, line);
  for (const char* key : {"ids", "ids_in"})
    if (line.contains(key)) return json_text(decoded(tokenizer, line, ids_of(line[key], key)));
  fail("tokenize.input", "a line has neither \"text\" nor \"ids\"");
}

int tokenize(const Arguments& arguments) {
  check(arguments.has_text != !arguments.input.empty(), "program.usage", "give either --input or --text");
  const auto tokenizer = load_tokenizer(arguments.tokenizer);
  std::string printed;
  std::optional<AtomicFile> file;
  if (!arguments.output.empty() && arguments.output != "-") file.emplace(arguments.output);
  const auto put = [&](const std::string& line) {
    if (file) file->write(line + "\n");
    else printed += line + "\n";  // not before all lines are known to be good
  };
  if (arguments.has_text) {
    put(answer(*tokenizer, {{"text", arguments.text}}));
  } else {
    std::istringstream input(read_input(arguments.input));
    size_t number = 0;
    for (std::string line; std::getline(input, line);) {
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      try {
        put(answer(*tokenizer, json_from(line)));
      } catch (const nlohmann::json::exception& error) {
        fail("tokenize.input", "{}, line {}: {}", arguments.input, number, json_fault(error));
      } catch (const Error& error) {
        throw Error(error.code(), fmt::format("{}, line {}: {}", arguments.input, number, error.message()));
      }
    }
  }
  if (file) file->commit();
  else print(printed);
  return 0;
}

}  // namespace

Verb tokenize_verb() {
  return {.name = "tokenize",
          .summary = "texts to token ids, ids to text, with any tokenizer file",
          .example = "switchyard tokenize DIR --input in.jsonl --output out.jsonl",
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("tokenizer", arguments->tokenizer, "folder of a model or tokenizer, or one tokenizer file").required();
            line.option("--input", arguments->input,
                        "JSON lines: {\"text\", \"pair\", \"add_special\", \"parse_special\"} (both true unless said otherwise) encodes; "
                        "{\"ids\"} decodes, with \"stream\": true id by id (\"prompt_ids\", \"skip_special\"); - reads standard input");
            line.option("--output", arguments->output, "JSON lines to write; without it they are printed");
            const Argument text = line.option("--text", arguments->text, "a text to encode, instead of --input");
            return [arguments, text] {
              arguments->has_text = text.given();
              return tokenize(*arguments);
            };
          }};
}

}  // namespace switchyard::program
