// Experts in ggml, that of llama.cpp or of ik_llama.cpp, rows spread evenly: one linear map of each, or whole SwiGLU networks whose outputs
// are weighted and added.
//
//   ggml_experts TYPE ROWS WIDTH HIDDEN EXPERTS CHOICES THREADS REPEATS product|network
//
// prints the median GFLOP/s of the weights as a file has them and, where ggml repacks them when a model is loaded, of that layout too.
// bench/peers/llama.py compiles it against a build and calls it in turn with ours.
#include <ggml.h>
#if __has_include(<ggml-cpu.h>)
#include <ggml-cpu.h>
#endif
#if __has_include(<ggml-backend.h>)
#include <ggml-backend.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace {

ggml_type type_named(const char* name) {
  for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
    const char* known = ggml_type_name(static_cast<ggml_type>(t));
    if (known && std::strcmp(known, name) == 0) return static_cast<ggml_type>(t);
  }
  std::fprintf(stderr, "no type is called %s\n", name);
  std::exit(2);
}

/// The two have other parameters.
template <typename Type>
void quantise(Type type, const float* from, void* to, int64_t rows, int64_t width) {
  if constexpr (requires { ggml_quantize_chunk(type, from, to, 0, rows, width, nullptr, nullptr); })
    ggml_quantize_chunk(type, from, to, 0, rows, width, nullptr, nullptr);
  else
    ggml_quantize_chunk(type, from, to, 0, rows, width, nullptr);
}

/// A copy of `weights` in the layout that ggml's loader would choose for `product`, which then multiplies with it; false where it has none.
bool repack([[maybe_unused]] ggml_tensor* weights, [[maybe_unused]] ggml_tensor* product) {
#ifdef GGML_BACKEND_API
  ggml_backend_reg_t registry = ggml_backend_cpu_reg();
  ggml_backend_dev_t device = ggml_backend_reg_dev_get(registry, 0);
  const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts"));
  for (ggml_backend_buffer_type_t* type = extra ? extra(device) : nullptr; type && *type; ++type) {
    ggml_context* context = ggml_init({1 << 20, nullptr, true});  // kept until the end, as the buffer is
    ggml_tensor* copy = ggml_dup_tensor(context, weights);
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(*type, ggml_backend_buft_get_alloc_size(*type, copy));
    if (buffer == nullptr || ggml_backend_tensor_alloc(buffer, copy, ggml_backend_buffer_get_base(buffer)) != GGML_STATUS_SUCCESS) continue;
    product->src[0] = copy;
    if (copy->extra && ggml_backend_dev_supports_op(device, product)) {
      ggml_backend_tensor_set(copy, weights->data, 0, ggml_nbytes(weights));
      return true;
    }
    product->src[0] = weights;
  }
#endif
  return false;
}

struct Shape { int64_t rows, width, hidden, experts, choices; };

/// [in, out, experts], random, every expert the same.
ggml_tensor* stack(ggml_context* context, ggml_type type, int64_t in, int64_t out, int64_t experts) {
  ggml_tensor* weights = ggml_new_tensor_3d(context, type, in, out, experts);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> one(static_cast<size_t>(in * out));
  for (float& w : one) w = 0.02f * normal(random);
  const size_t bytes = ggml_row_size(type, in) * static_cast<size_t>(out);
  quantise(type, one.data(), weights->data, out, in);
  for (int64_t e = 1; e < experts; ++e) std::memcpy(static_cast<char*>(weights->data) + e * bytes, weights->data, bytes);
  return weights;
}

/// silu(gate x) (up x) of the chosen experts, in one operation where ggml has it; the products are added to `products`.
template <typename Context>
ggml_tensor* hidden_of(Context* context, ggml_tensor* gate, ggml_tensor* up, ggml_tensor* x, ggml_tensor* chosen, std::vector<ggml_tensor*>& products) {
  if constexpr (requires { ggml_moe_up_gate(context, up, gate, x, chosen, GGML_UNARY_OP_SILU); }) {
    return ggml_moe_up_gate(context, up, gate, x, chosen, GGML_UNARY_OP_SILU);
  } else {
    products = {ggml_mul_mat_id(context, gate, x, chosen), ggml_mul_mat_id(context, up, x, chosen)};
    return ggml_swiglu_split(context, products[0], products[1]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool network = argc == 10 && std::strcmp(argv[9], "network") == 0;
  if (argc != 10 || (!network && std::strcmp(argv[9], "product") != 0)) {
    std::fprintf(stderr, "ggml_experts TYPE ROWS WIDTH HIDDEN EXPERTS CHOICES THREADS REPEATS product|network\n");
    return 2;
  }
  const ggml_type type = type_named(argv[1]);
  const Shape s{std::atoll(argv[2]), std::atoll(argv[3]), std::atoll(argv[4]), std::atoll(argv[5]), std::atoll(argv[6])};
  const int threads = std::atoi(argv[7]), repeats = std::atoi(argv[8]), maps = network ? 3 : 1;

  const int64_t pairs = s.rows * s.choices;
  ggml_init_params params{};
  params.mem_size = static_cast<size_t>(maps) * ggml_row_size(type, s.width) * static_cast<size_t>(s.hidden * s.experts) +
                    static_cast<size_t>(pairs) * (4 * s.hidden + (network ? 4 * s.width : 0)) * 8 + static_cast<size_t>(s.rows * s.width) * 8 + (size_t{512} << 20);
  ggml_context* context = ggml_init(params);
  ggml_tensor* x = ggml_new_tensor_3d(context, GGML_TYPE_F32, s.width, 1, s.rows);
  ggml_tensor* chosen = ggml_new_tensor_2d(context, GGML_TYPE_I32, s.choices, s.rows);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < s.rows * s.width; ++i) static_cast<float*>(x->data)[i] = normal(random);
  for (int64_t i = 0; i < pairs; ++i) static_cast<int32_t*>(chosen->data)[i] = static_cast<int32_t>(i % s.experts);

  std::vector<ggml_tensor*> stacks, products;
  ggml_tensor* result = nullptr;
  if (network) {
    ggml_tensor* weight = ggml_new_tensor_3d(context, GGML_TYPE_F32, 1, s.choices, s.rows);
    for (int64_t i = 0; i < pairs; ++i) static_cast<float*>(weight->data)[i] = 1.0f / static_cast<float>(s.choices);
    stacks = {stack(context, type, s.width, s.hidden, s.experts), stack(context, type, s.width, s.hidden, s.experts), stack(context, type, s.hidden, s.width, s.experts)};
    ggml_tensor* hidden = hidden_of(context, stacks[0], stacks[1], x, chosen, products);
    ggml_tensor* down = ggml_mul_mat_id(context, stacks[2], hidden, chosen);
    if (!products.empty()) products.push_back(down);
    ggml_tensor* weighted = ggml_mul(context, down, weight);
    for (int64_t i = 0; i < s.choices; ++i) {
      ggml_tensor* one = ggml_view_2d(context, weighted, s.width, s.rows, weighted->nb[2], static_cast<size_t>(i) * weighted->nb[1]);
      result = result ? ggml_add(context, result, one) : one;
    }
  } else {
    stacks = {stack(context, type, s.width, s.hidden, s.experts)};
    result = ggml_mul_mat_id(context, stacks[0], x, chosen);
    products = {result};
  }

  const auto measure = [&](const char* layout) {
    ggml_cgraph* graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, result);
    // The work memory of a run comes from the same context, so the plan is made once.
    ggml_cplan plan = [&](auto* g) {
      if constexpr (requires { ggml_graph_plan(g, threads, nullptr); }) return ggml_graph_plan(g, threads, nullptr);
      else return ggml_graph_plan(g, threads);
    }(graph);
    std::vector<uint8_t> work(plan.work_size + 64);
    plan.work_data = work.data();

    std::vector<double> seconds;
    for (int i = 0; i <= repeats; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      ggml_graph_compute(graph, &plan);
      if (i > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::sort(seconds.begin(), seconds.end());
    const double operations = 2.0 * maps * static_cast<double>(pairs) * static_cast<double>(s.width * s.hidden);
    std::printf("%s %.1f\n", layout, operations / seconds[seconds.size() / 2] / 1e9);
  };
  measure("plain");
  bool all = !products.empty();
  for (size_t i = 0; all && i < products.size(); ++i) all = repack(stacks[i], products[i]);
  if (all) measure("repacked");
}
