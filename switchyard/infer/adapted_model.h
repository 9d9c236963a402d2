// A model with adapters as a language model: one set of adapters for all, one for each sequence of a batch, or an X-LoRA, which
// looks at every token first and then weighs its adapters (Buehler and Buehler 2024; two passes a step).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/infer/network_model.h"
#include "switchyard/models/adapters/adapter_set.h"

namespace switchyard {

/// The segment fact that says which adapter a sequence uses: its place among the loaded ones; -1 = none.
inline constexpr const char* kAdapterFact = "adapter";

class AdaptedModel : public LanguageModel {
 public:
  explicit AdaptedModel(LoadedModel model);

  const NetworkModel& network() const { return network_; }
  AdapterSet& adapters() { return adapters_; }
  const AdapterSet& adapters() const { return adapters_; }
  /// What sequences without the fact "adapter" use; none = the base. Throws what AdapterSet::use does.
  void use(const std::vector<ActiveAdapter>& active);
  /// Loads the adapters of an X-LoRA and its classifier. Throws adapters.kind when other adapters are loaded, adapters.shape when
  /// the classifier does not fit the model and its maps; what AdapterSet::load does.
  void load_xlora(const peft::AdapterFile& file);
  /// X-LoRA: [rows, maps, adapters], softmaxed where the config says so, before any choice of the best.
  at::Tensor scalings(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state) const;
  bool is_xlora() const { return xlora_.has_value(); }

  int64_t vocabulary() const override { return network_.vocabulary(); }
  int64_t context() const override { return network_.context(); }
  const Tokenizer* tokenizer() const override { return network_.tokenizer(); }
  std::vector<int64_t> end_ids() const override { return network_.end_ids(); }
  bool names_classes() const override { return network_.names_classes(); }
  int64_t image_rows() const override { return network_.image_rows(); }
  std::optional<int64_t> start_id() const override { return network_.start_id(); }
  /// Under the adapters that sequences without the fact "adapter" use. Throws adapters.kind for an X-LoRA, adapters.by_rows for
  /// sequences that ask for adapters of their own.
  Memory encode(const at::Tensor& ids, const Facts& facts, const Wanted& wanted = {}) const override;
  /// Sequences with different adapters run one group after another. Throws adapters.unknown for a fact that names none.
  at::Tensor logits(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                    const Wanted& wanted = {}) const override;
  bool rows_stand_alone(Phase phase) const override { return network_.rows_stand_alone(phase); }
  bool reads_in_pieces() const override { return !xlora_ && network_.reads_in_pieces(); }
  void check_generation() const override { network_.check_generation(); }

 private:
  struct XLora {
    peft::XLoraSettings settings;
    std::vector<std::pair<at::Tensor, at::Tensor>> layers;
    int64_t maps = 0, adapters = 0;
    std::shared_ptr<const Adaptation> adaptation;
    /// What multiplies: the best k kept and softmaxed again where the config says so.
    at::Tensor chosen(const at::Tensor& scalings) const;
  };
  std::shared_ptr<const Adaptation> alone(int64_t adapter, const std::vector<std::string>& names) const;
  at::Tensor grouped(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows, const Wanted& wanted) const;

  NetworkModel network_;
  AdapterSet adapters_;
  std::shared_ptr<const Adaptation> active_;
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<const Adaptation>> alone_;  ///< by adapter, the base first, once they were asked for
  std::optional<XLora> xlora_;
};

}  // namespace switchyard
