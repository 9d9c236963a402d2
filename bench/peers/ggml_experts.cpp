// The product of experts in ggml, that of llama.cpp or of ik_llama.cpp: one linear map an expert, rows spread evenly.
//
//   ggml_experts TYPE ROWS WIDTH HIDDEN EXPERTS CHOICES THREADS REPEATS
//
// prints the median GFLOP/s. bench/peers/llama.py compiles it against a build and calls it in turn with ours.
#include <ggml.h>
#if __has_include(<ggml-cpu.h>)
#include <ggml-cpu.h>
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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(stderr, "ggml_experts TYPE ROWS WIDTH HIDDEN EXPERTS CHOICES THREADS REPEATS\n");
    return 2;
  }
  const ggml_type type = type_named(argv[1]);
  const int64_t rows = std::atoll(argv[2]), width = std::atoll(argv[3]), hidden = std::atoll(argv[4]), experts = std::atoll(argv[5]),
                choices = std::atoll(argv[6]);
  const int threads = std::atoi(argv[7]), repeats = std::atoi(argv[8]);

  ggml_init_params params{};
  params.mem_size = ggml_row_size(type, width) * static_cast<size_t>(hidden * experts) + static_cast<size_t>(rows) * (width + hidden * choices) * 8 +
                    (size_t{512} << 20);
  ggml_context* context = ggml_init(params);
  ggml_tensor* weights = ggml_new_tensor_3d(context, type, width, hidden, experts);
  ggml_tensor* x = ggml_new_tensor_3d(context, GGML_TYPE_F32, width, 1, rows);
  ggml_tensor* chosen = ggml_new_tensor_2d(context, GGML_TYPE_I32, choices, rows);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> one(static_cast<size_t>(width * hidden));
  for (float& w : one) w = 0.02f * normal(random);
  const size_t bytes = ggml_row_size(type, width) * static_cast<size_t>(hidden);
  quantise(type, one.data(), weights->data, hidden, width);
  for (int64_t e = 1; e < experts; ++e) std::memcpy(static_cast<char*>(weights->data) + e * bytes, weights->data, bytes);
  for (int64_t i = 0; i < rows * width; ++i) static_cast<float*>(x->data)[i] = normal(random);
  for (int64_t i = 0; i < rows * choices; ++i) static_cast<int32_t*>(chosen->data)[i] = static_cast<int32_t>(i % experts);

  ggml_cgraph* graph = ggml_new_graph(context);
  ggml_build_forward_expand(graph, ggml_mul_mat_id(context, weights, x, chosen));
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
  const double operations = 2.0 * static_cast<double>(rows * choices) * static_cast<double>(width * hidden);
  std::printf("%.1f\n", operations / seconds[seconds.size() / 2] / 1e9);
}
