#include "switchyard/convert/quantise.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <memory>

#include "switchyard/base/error.h"
#include "switchyard/formats/gguf.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kChunkValues = int64_t{1} << 24;  ///< floats unpacked at a time

/// The number that general.file_type has for a file mostly of that type, as llama.cpp counts them.
constexpr std::array<std::pair<std::string_view, uint32_t>, 21> kFileTypes{{
    {"F32", 0}, {"F16", 1}, {"Q4_0", 2}, {"Q4_1", 3}, {"Q8_0", 7}, {"Q5_0", 8}, {"Q5_1", 9}, {"Q2_K", 10}, {"Q3_K", 11},
    {"Q4_K", 14}, {"Q5_K", 16}, {"Q6_K", 18}, {"IQ4_NL", 25}, {"IQ4_XS", 30}, {"BF16", 32}, {"TQ1_0", 36}, {"TQ2_0", 37},
    {"MXFP4", 38}, {"NVFP4", 39}, {"Q1_0", 40}, {"Q2_0", 41}}};

/// The codec of a type that files are written in, whatever its case.
const BlockCodec& writable(const std::string& type) {
  std::string upper = type;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::vector<std::string_view> known;
  for (const auto& [name, number] : kFileTypes) {
    if (name == upper) return *block_codec_named(name);
    known.push_back(name);
  }
  fail("convert.quantise.type", "'{}' is no type that weights can be packed in; these are: {}", type, fmt::join(known, ", "));
}

struct Role { const char* name; bool (*holds)(const std::string& tensor); };
constexpr Role kRoles[]{
    {"embedding", [](const std::string& name) { return name == "token_embd.weight"; }},
    {"head", [](const std::string& name) { return name == "output.weight"; }},
    {"router", [](const std::string& name) { return name.find(".ffn_gate_inp") != std::string::npos; }},
    {"experts", [](const std::string& name) { return name.ends_with("_exps.weight"); }},
    {"shared", [](const std::string& name) { return name.ends_with("_shexp.weight"); }},
    {"attention", [](const std::string& name) { return name.find(".attn_") != std::string::npos; }},
    {"dense", [](const std::string& name) { return name.find(".ffn_") != std::string::npos; }},
};

/// The first of the roles, in the order above, or empty.
std::string role_of(const std::string& tensor) {
  for (const Role& role : kRoles)
    if (role.holds(tensor)) return role.name;
  return "";
}

bool is_plain_float(std::string_view type) { return type == "F32" || type == "F16" || type == "BF16"; }

/// The types that the options give a tensor, before its shape is looked at; null = as it is.
const BlockCodec* chosen(const TensorInfo& info, const QuantiseOptions& options, const BlockCodec* type) {
  const std::string role = role_of(info.name);
  for (const std::string& key : {info.name, role})
    for (const auto& [name, kept] : options.keep)
      if (!key.empty() && name == key) return &writable(kept);
  bool matrix = info.shape.size() >= 2 && info.name.ends_with(".weight");
  for (const char* small : {"norm", "ssm_conv1d", "attn_rel_b", "position_embd", "token_types"}) matrix = matrix && info.name.find(small) == std::string::npos;
  return matrix && role != "router" ? type : nullptr;
}

/// Packs a tensor part by part of its leading axis.
at::Tensor pack(const WeightSource& file, const TensorInfo& info, const BlockCodec& codec) {
  const std::shared_ptr<const PackedTensor> packed = file.packed(info.name);
  const at::Tensor plain = packed ? at::Tensor() : file.get(info.name);
  std::vector<int64_t> shape = info.shape;
  int64_t each = 1;
  for (size_t i = 1; i < shape.size(); ++i) each *= shape[i];
  const int64_t count = shape.empty() ? 1 : shape.front(), step = std::max<int64_t>(1, kChunkValues / std::max<int64_t>(each, 1));
  if (shape.size() < 2) return quantise_blocks(codec, packed ? packed->dequantise() : plain);
  shape.back() = shape.back() / codec.length * codec.bytes;
  at::Tensor bytes = at::empty(shape, at::kByte);
  for (int64_t first = 0; first < count; first += step) {
    const int64_t here = std::min(step, count - first);
    bytes.narrow(0, first, here).copy_(quantise_blocks(codec, packed ? packed->dequantise(first, here) : plain.narrow(0, first, here)));
  }
  return bytes;
}

/// A tensor as it lies in the source.
GgufTensor unchanged(const std::shared_ptr<const WeightSource>& source, const TensorInfo& info) {
  const BlockCodec* codec = block_codec_named(info.dtype);
  return {info.name, codec, info.shape, [source, info, codec]() -> at::Tensor {
            if (const auto packed = std::dynamic_pointer_cast<const BlockTensor>(source->packed(info.name)))
              return at::from_blob(const_cast<uint8_t*>(packed->row(0)), {static_cast<int64_t>(info.bytes)}, [packed](void*) {}, at::TensorOptions().dtype(at::kByte));
            if (info.bytes == 0) return at::empty({0}, at::kByte);
            return codec->plain() ? source->get(info.name).contiguous() : pack(*source, info, *codec);
          }};
}

}  // namespace

std::vector<std::pair<std::string, std::string>> parse_keep(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> keep;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size()), equals = text.find('=', at);
    check(equals != std::string::npos && equals > at && equals + 1 < end, "convert.quantise.keep",
          "'{}' is no list of role=type, such as router=f32,head=q6_K", text);
    keep.emplace_back(text.substr(at, equals - at), text.substr(equals + 1, end - equals - 1));
    at = end + 1;
  }
  return keep;
}

QuantiseReport write_quantised(GgufMetadata metadata, const std::shared_ptr<const WeightSource>& source, const fs::path& out,
                               const QuantiseOptions& options) {
  const BlockCodec* type = options.type.empty() ? nullptr : &writable(options.type);
  check(!fs::exists(out), "convert.quantise.exists", "{} is there already; choose a new name", out.string());
  for (const auto& [name, kept] : options.keep) {
    (void)writable(kept);
    const bool role = std::any_of(std::begin(kRoles), std::end(kRoles), [&](const Role& known) { return name == known.name; });
    std::vector<std::string_view> roles;
    for (const Role& known : kRoles) roles.push_back(known.name);
    check(role || source->has(name), "convert.quantise.keep", "'{}' is neither a tensor of {} nor one of the roles {}", name, metadata.source(),
          fmt::join(roles, ", "));
  }

  QuantiseReport report;
  std::vector<GgufTensor> tensors;
  const auto total = static_cast<int64_t>(source->tensors().size());
  for (const TensorInfo& info : source->tensors()) {
    const BlockCodec* codec = chosen(info, options, type);
    const std::shared_ptr<const PackedTensor> packed = source->packed(info.name);
    const bool numbers = is_plain_float(info.dtype) || packed != nullptr || !block_codec_named(info.dtype)->plain();  // not integers, not float64
    const int64_t row = info.shape.empty() ? 1 : info.shape.back();
    if (codec != nullptr && numbers && row % codec->length != 0) {
      codec = block_codec_named(row % 32 == 0 ? "Q8_0" : "F16");
      report.fallbacks.push_back(fmt::format("{}: {}", info.name, codec->name));
    }
    report.bytes_before += info.bytes;
    if (codec == nullptr || !numbers || codec->name == info.dtype) {
      report.bytes_after += info.bytes;
      tensors.push_back(unchanged(source, info));
    } else {
      report.packed += !codec->plain();
      report.packed_again += !codec->plain() && !is_plain_float(info.dtype);
      int64_t values = 1;
      for (const int64_t extent : info.shape) values *= extent;
      report.bytes_after += static_cast<uint64_t>(values / codec->length * codec->bytes);
      tensors.push_back({info.name, codec, info.shape, [source, info, codec] { return pack(*source, info, *codec); }});
    }
    if (options.progress)
      tensors.back().bytes = [bytes = tensors.back().bytes, &options, name = info.name, done = static_cast<int64_t>(tensors.size()), total] {
        options.progress(name, done, total);
        return bytes();
      };
  }
  for (const auto& [name, number] : kFileTypes)
    if (type != nullptr && name == type->name) metadata.set("general.file_type", GgufValue::u32(number));
  metadata.set("general.quantization_version", GgufValue::u32(2));
  report.files = write_gguf(out, metadata, tensors, options.shard_bytes);
  return report;
}

QuantiseReport quantise_gguf(const fs::path& in, const fs::path& out, const QuantiseOptions& options) {
  (void)writable(options.type);
  check(fs::is_regular_file(in), "convert.quantise.input", "{} is no file; a GGUF file is needed", in.string());
  check(!fs::exists(out), "convert.quantise.exists", "{} is there already; choose a new name", out.string());
  const auto file = std::make_shared<const Gguf>(in);
  return write_quantised(file->metadata(), file, out, options);
}

}  // namespace switchyard
