#include "switchyard/data/sources.h"

#include <glob.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/base/progress.h"
#include "switchyard/data/filters.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace fs = std::filesystem;
namespace {

constexpr size_t kWholeFileLimit = size_t{256} << 20;
constexpr size_t kReadBytes = size_t{1} << 20;

bool is_glob(const std::string& path) { return path.find_first_of("*?[") != std::string::npos; }

std::vector<fs::path> expand_glob(const std::string& pattern) {
  glob_t found{};
  std::vector<fs::path> paths;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(std::string(found.gl_pathv[i]));
  ::globfree(&found);
  return paths;
}

void add_files(const fs::path& path, std::vector<fs::path>& files) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    files.push_back(path);
  } else if (fs::is_directory(path, error)) {
    fs::recursive_directory_iterator walk(path, fs::directory_options::skip_permission_denied, error), end;
    for (; !error && walk != end; walk.increment(error)) {
      std::error_code unused;
      if (walk->is_regular_file(unused)) files.push_back(walk->path());
    }
    check(!error, "data.read", "cannot list {}: {}", path.string(), error.message());
  }
}

std::string way_out(const DomainOptions& domain) {
  return domain.package.empty() ? "check the path, or set data.missing_ok to leave it out"
                                : fmt::format("install it with \"apt-get install {}\", or set data.missing_ok to leave it out",
                                              domain.package);
}

bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos; }

}  // namespace

std::vector<SourceFile> find_sources(const DomainOptions& domain, bool missing_ok) {
  check(!domain.paths.empty(), "data.missing", "domain \"{}\" lists no paths", domain.name);
  std::set<fs::path> real;
  for (const std::string& path : domain.paths) {
    std::vector<fs::path> files;
    std::error_code unknown;
    if (is_glob(path) && !fs::exists(path, unknown)) for (const fs::path& match : expand_glob(path)) add_files(match, files);
    else add_files(path, files);
    if (files.empty()) {
      const std::string text = fmt::format("domain \"{}\": there is no file at {}; {}", domain.name, path, way_out(domain));
      check(missing_ok, "data.missing", "{}", text);
      log_warning(text);
    }
    for (const fs::path& file : files) {
      std::error_code error;
      const fs::path canonical = fs::canonical(file, error);
      real.insert(error ? file : canonical);
    }
  }
  std::vector<std::pair<uint64_t, SourceFile>> order;
  for (const fs::path& path : real) {
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    const auto modified = fs::last_write_time(path, error);
    check(!error, "data.read", "cannot read {}: {}", path.string(), error.message());
    order.emplace_back(stable_hash(path.string()),
                       SourceFile{path, static_cast<int64_t>(bytes), static_cast<int64_t>(modified.time_since_epoch().count())});
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second.path < b.second.path;
  });
  std::vector<SourceFile> sources;
  for (auto& [hash, source] : order) sources.push_back(std::move(source));
  return sources;
}

size_t document_cut(std::string_view text, size_t most) {
  if (text.size() <= most) return text.size();
  const std::string_view head = text.substr(0, most);
  // A border in the first half would leave scraps.
  for (const std::string_view border : {"\n\n", "\n", " "}) {
    const size_t at = head.rfind(border);
    if (at != std::string_view::npos && at + border.size() > most / 2) return at + border.size();
  }
  const size_t cut = most - utf8_unfinished(head);
  return cut > 0 ? cut : utf8_step(text).bytes;
}

/// One open file, unpacked on the way (zlib passes through what is not packed).
struct DocumentReader::Input {
  SourceFile file;
  gzFile handle = nullptr;
  bool jsonl = false;
  bool end = false;      ///< everything is in buffer
  std::string buffer;
  size_t at = 0;         ///< the part of buffer before it is used up
  int64_t line = 0;

  explicit Input(const SourceFile& source) : file(source) {
    handle = ::gzopen(file.path.c_str(), "rb");
    check(handle != nullptr, "data.read", "cannot open {}: {}", file.path.string(), std::strerror(errno));
    ::gzbuffer(handle, 1 << 17);
  }
  ~Input() { ::gzclose(handle); }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  std::string_view rest() const { return std::string_view(buffer).substr(at); }
  bool finished() const { return end && at == buffer.size(); }

  void read() {
    buffer.erase(0, at);
    at = 0;
    const size_t before = buffer.size();
    check(before <= kWholeFileLimit, "data.too_large", "{}{} is longer than {} MiB, too much to hold; split it", file.path.string(),
          jsonl ? fmt::format(":{}", line + 1) : "", kWholeFileLimit >> 20);
    buffer.resize(before + kReadBytes);
    const int got = ::gzread(handle, buffer.data() + before, static_cast<unsigned>(kReadBytes));
    int code = Z_OK;
    const char* reason = ::gzerror(handle, &code);
    const bool failed = got < 0 || (code != Z_OK && code != Z_STREAM_END);
    check(!failed, "data.read", "cannot read {}: {}; a packed file may be damaged or cut short, fetch it again",
          file.path.string(), code == Z_ERRNO ? std::strerror(errno) : reason);
    buffer.resize(before + static_cast<size_t>(got));
    end = static_cast<size_t>(got) < kReadBytes;
  }

  /// False at the end of the file.
  bool next_line(std::string_view& text) {
    size_t newline = buffer.find('\n', at);
    while (newline == std::string::npos && !end) {
      const size_t searched = buffer.size() - at;
      read();
      newline = buffer.find('\n', searched);
    }
    if (at == buffer.size()) return false;
    ++line;
    text = rest().substr(0, newline == std::string::npos ? newline : newline - at);
    at = newline == std::string::npos ? buffer.size() : newline + 1;
    return true;
  }
};

DocumentReader::DocumentReader(const DomainOptions& domain, std::vector<SourceFile> files, int64_t document_bytes)
    : domain_(domain), files_(std::move(files)), document_bytes_(document_bytes) {
  if (!domain.filter.empty()) (void)find_filter(domain.filter);
}
DocumentReader::~DocumentReader() = default;

int64_t DocumentReader::total_bytes() const {
  int64_t total = 0;
  for (const SourceFile& file : files_) total += file.bytes;
  return total;
}
int64_t DocumentReader::bytes_read() const { return finished_bytes_; }

void DocumentReader::open_next() {
  input_ = std::make_unique<Input>(files_[file_++]);
  fs::path name = input_->file.path;
  if (name.extension() == ".gz") name = name.stem();
  const std::string kind = name.extension().string();
  input_->jsonl = domain_.format == TextFormat::jsonl ||
                  (domain_.format == TextFormat::automatic && domain_.filter.empty() && (kind == ".jsonl" || kind == ".ndjson"));
}

void DocumentReader::take(std::string text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  if (blank(text)) {
    ++counts_.empty;
    return;
  }
  int64_t broken = 0;
  const bool zero = text.find('\0') != std::string::npos;
  std::string repaired = zero ? std::string() : utf8_repair(text, &broken);
  // One broken character in a hundred bytes is damage; more is another encoding.
  if (zero || broken * 100 > static_cast<int64_t>(text.size())) {
    ++counts_.not_text;
    if (counts_.example.empty() && input_) counts_.example = input_->file.path.string();
    return;
  }
  if (broken > 0) ++counts_.repaired;
  for (std::string_view rest = repaired; !rest.empty();) {
    const size_t cut = document_cut(rest, static_cast<size_t>(document_bytes_));
    if (!blank(rest.substr(0, cut))) queue_.emplace_back(rest.substr(0, cut));
    rest.remove_prefix(cut);
  }
}

void DocumentReader::read_json_line() {
  Input& input = *input_;
  std::string_view line;
  if (!input.next_line(line) || blank(line)) return;
  auto object = json_if_valid(line);
  if (object.is_discarded()) {  // perhaps only its UTF-8 is broken
    int64_t broken = 0;
    object = json_if_valid(utf8_repair(line, &broken));
    counts_.repaired += broken > 0 && !object.is_discarded();
  }
  check(!object.is_discarded(), "data.json", "{}:{} is no JSON: {}", input.file.path.string(), input.line,
        utf8_repair(line.substr(0, 60)));
  check(object.is_object() && object.contains(domain_.field) && object[domain_.field].is_string(), "data.field",
        "{}:{} has no text under \"{}\"; name the key that holds it as the domain's \"field\"", input.file.path.string(),
        input.line, domain_.field);
  take(object[domain_.field].get<std::string>());
}

void DocumentReader::read_text() {
  Input& input = *input_;
  const auto most = static_cast<size_t>(document_bytes_);
  while (!input.end && input.rest().size() <= most) input.read();
  const std::string text(input.rest().substr(0, document_cut(input.rest(), most)));
  input.at += text.size();
  take(text);
}

void DocumentReader::read_more() {
  if (!input_) open_next();
  Input& input = *input_;
  if (!domain_.filter.empty()) {
    while (!input.end) input.read();
    input.at = input.buffer.size();
    find_filter(domain_.filter).run({input.file.path, input.buffer}, [&](std::string text) { take(std::move(text)); });
  } else if (input.jsonl) {
    read_json_line();
  } else {
    read_text();
  }
  if (input.finished()) {
    finished_bytes_ += input.file.bytes;
    input_.reset();
  }
}

bool DocumentReader::next(std::string& document) {
  if (domain_.limit_bytes > 0 && counts_.bytes >= domain_.limit_bytes) return false;
  while (queue_.empty()) {
    if (!input_ && file_ == files_.size()) return false;
    read_more();
  }
  document = std::move(queue_.front());
  queue_.pop_front();
  if (domain_.limit_bytes > 0) {
    const auto left = static_cast<size_t>(domain_.limit_bytes - counts_.bytes);
    document.resize(document_cut(document, left));
  }
  ++counts_.documents;
  counts_.bytes += static_cast<int64_t>(document.size());
  return true;
}

}  // namespace switchyard
