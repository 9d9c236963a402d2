#define PCRE2_CODE_UNIT_WIDTH 8
#include "switchyard/formats/tokenizers/regex.h"

#include <pcre2.h>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/unicode.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

constexpr uint32_t kMatchLimit = 50'000'000;     // steps of one search; well-behaved patterns need a few a byte
constexpr size_t kJitStackBytes = 32 << 20;      // grows on demand
constexpr uint32_t kHeapLimitKibibytes = 64 << 10;

/// What a search needs besides the pattern; one a thread.
struct Scratch {
  Scratch() : data(pcre2_match_data_create(1, nullptr)), context(pcre2_match_context_create(nullptr)),
              stack(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)) {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKibibytes);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof buffer);
  return length > 0 ? std::string(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length)) : std::to_string(code);
}

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(std::string pattern, RegexDialect dialect) : pattern_(std::move(pattern)), compiled_(new Compiled) {
  std::string translated = translate_regex(pattern_, dialect);
  uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
  if (dialect == RegexDialect::ruby) options |= PCRE2_MULTILINE;
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  const auto compile = [&] {
    compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error, &at, context);
  };
  compile();
  if (compiled_->code == nullptr) {
    // Before 10.40 PCRE2 knew scripts, and no script extensions, under the plain name, and none of these properties.
    constexpr std::pair<std::string_view, std::string_view> kOlder[]{
        {"{sc:", "{"}, {"\\p{Alphabetic}", "\\p{L}\\p{Nl}\\p{M}"}, {"\\p{Lowercase}", "\\p{Ll}"}, {"\\p{Uppercase}", "\\p{Lu}"}};
    std::string older = translated;
    for (const auto& [word, instead] : kOlder)
      for (size_t i = 0; (i = older.find(word, i)) != std::string::npos; i += instead.size()) older.replace(i, word.size(), instead);
    if (older != translated) {
      translated = std::move(older);
      compile();
    }
  }
  pcre2_compile_context_free(context);
  check(compiled_->code != nullptr, "tokenizer.regex", "the regular expression {} cannot be used: {} (at byte {} of {})", pattern_,
        error_text(error), at, translated);
  pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);  // without it, the interpreter runs
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, std::vector<Span>& matches) const {
  thread_local Scratch scratch;
  std::string older;  // what the engine's tables do not know is searched as something alike
  if (unicode::replace_newer(text, older)) text = older;
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(scratch.data);
  matches.clear();
  size_t at = 0;
  bool matched = false;  // whether a match ends at `last`
  size_t last = 0;
  while (at <= text.size()) {
    const int result = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK,
                                   scratch.data, scratch.context);
    if (result == PCRE2_ERROR_NOMATCH) return;  // 0: there are groups, for which `data` has no room
    check(result >= 0, "tokenizer.regex", "the regular expression {} gives up on a text of {} bytes: {}", pattern_, text.size(),
          error_text(result));
    const size_t begin = found[0], end = found[1];
    if (begin >= end && matched && last == end) {
      at = end < text.size() ? end + utf8_length(text[end]) : end + 1;
      continue;
    }
    matches.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    at = last = end;
    matched = true;
  }
}

std::string quote_regex(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
    if (c == '\n') quoted += "\\n";
    else if (c == '\0') quoted += "\\x00";
    else if (plain) quoted += c;
    else (quoted += '\\') += c;
  }
  return quoted;
}

}  // namespace switchyard
