// The numbers of the routing report, each a pure function of a trace or of counts. Every one comes with
// what chance would give: a number without its chance level says nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/inspect/routing_trace.h"
#include "switchyard/inspect/statistics.h"

namespace switchyard {

/// Balance of one layer (Shazeer 2017, GShard, Switch, DeepSeek-V3). Counts of two windows merge by adding.
struct LoadReport {
  std::vector<double> engaged, admitted;   ///< [E] pairs asked for and pairs computed
  double cv = 0, max_violation = 0, gini = 0, entropy_ratio = 1, divergence = 0, dead_share = 0;  ///< of `engaged`
  double admitted_cv = 0;
  double drop_rate = 0;                    ///< 1 − Σ admitted / Σ engaged
  double importance_cv = 0;                ///< of Σ probabilities; 0 when the router gives none
  double importance_correlation = 0;       ///< Pearson, between `engaged` and Σ probabilities; 0 when either is constant
};
LoadReport load_report(std::vector<double> engaged, std::vector<double> admitted, double dead_threshold = 0.01);
/// Of a traced layer; a dense one counts its weights.
LoadReport load_report(const LayerTrace& layer);
/// Loads of devices, or of any other grouping: place[e] is expert e's group. Throws inspect.shape.
std::vector<double> grouped_load(const std::vector<double>& load, const std::vector<int64_t>& place, int64_t groups);
/// [E] Σ of probabilities (importance); empty when the router gives none.
std::vector<double> importance(const LayerTrace& layer);

/// How strongly experts are tied to domains (OLMoE's domain specialisation; mutual information as in Mod-Squad).
struct DomainReport {
  Table share;               ///< [domains, E] share of a domain's tokens with the expert among their k; rows sum to k
  Table best_share;          ///< the same for the best expert alone; rows sum to 1
  double experts_per_token = 0;
  double chance = 0;         ///< experts_per_token / E
  double max_ratio = 0;      ///< the largest share / chance
  Table variation;           ///< [domains, domains] total variation between the domains' expert distributions
  double mean_variation = 0;        ///< over the pairs of domains that have tokens
  double chance_variation_high = 0; ///< the permutations' 99th percentile of it
  double information = 0;    ///< I(expert; domain) in nats, hard counts
  double normalised = 0;     ///< by min(H(expert), H(domain))
  double chance_information = 0, chance_normalised = 0;  ///< mean over permutations of the domains among the segments
  double chance_high = 0;    ///< the permutations' 99th percentile of the information
  double p_value = 1;        ///< share of permutations (plus this) with at least as much
};
/// Permutes whole segments, since neighbouring tokens are not independent. Dense layers count weights.
DomainReport domain_report(const RoutingTrace& trace, const LayerTrace& layer, int64_t permutations = 200, uint64_t seed = 1);
/// I(expert; variable) with the soft counts Σ p, as the Mod-Squad loss has it. mass: [V, E].
double soft_information(const Table& mass);

enum class TokenKind { input, next, predicted };
/// Whether experts own token ids (OLMoE's vocabulary specialisation), by the best expert.
struct TokenReport {
  double score = 0;          ///< mean over ids of max_i share(i, id)
  double baseline = 0;       ///< the same with the routing permuted over the text: rare ids alone push it up
  int64_t types = 0;         ///< ids with at least min_count occurrences
  double explained = 0;      ///< I(expert; id) / H(expert), corrected by the shuffled routing's
  struct Favourite { int32_t token; int64_t count; double share; double lift; };
  /// [E] for each expert the ids whose favourite it is, strongest first (share, then count); lift = share / the expert's load.
  std::vector<std::vector<Favourite>> favourites;
};
/// Throws inspect.predicted when the trace has no predictions and they are asked for.
TokenReport token_report(const RoutingTrace& trace, const LayerTrace& layer, TokenKind kind, int64_t min_count = 10,
                         int64_t keep = 20, uint64_t seed = 1);

/// Which experts are used together by one token. joint[i][j] = tokens with both, joint[i][i] = tokens with i.
struct CoactivationReport {
  Table joint;               ///< [E, E] symmetric counts
  Table conditional;         ///< [E, E] share of i's tokens that also have j; zero diagonal; rows sum to k − 1
  double chance = 0;         ///< (k − 1) / (E − 1)
  std::vector<int64_t> order;  ///< [E] experts with similar companions side by side, for display
};
/// `adjacent_ranks`: count only neighbours in rank, as OLMoE's published script does; it understates pairs for k > 2.
CoactivationReport coactivation_report(const LayerTrace& layer, bool adjacent_ranks = false);
/// [E_from, E_to]: share of the tokens with i at one layer that have j at the other; chance k/E_to. Empty for dense layers.
Table layer_transition(const LayerTrace& from, const LayerTrace& to);

/// How sure routers are. Histograms over [0, 1] of the largest probability and of the entropy over ln E.
struct ConfidenceReport {
  bool available = false;
  std::vector<double> top, entropy;        ///< counts a bin
  double mean_top = 0, mean_entropy = 0;
};
ConfidenceReport confidence_report(const LayerTrace& layer, int64_t bins = 20);

/// Where in a sequence tokens are dropped (OpenMoE's drop towards the end).
struct DropReport {
  std::vector<double> engaged, dropped;    ///< a bin of positions
  int64_t longest = 0;                     ///< positions that the bins cover
  double rate = 0;
  double end_minus_start = 0;              ///< mean drop of the last quarter of positions − the first
  double ratio = 0;                        ///< last quarter over first; 0 when the first has none
  Line trend;                              ///< drop rate against relative position
  double chi_square = 0;                   ///< against one rate everywhere, bins − 1 degrees of freedom
  std::vector<double> by_sequence;         ///< drop rate by the sequence's place in its batch order, 16 bins
};
DropReport drop_report(const RoutingTrace& trace, const LayerTrace& layer, int64_t bins = 16);

/// How far an earlier checkpoint already chooses as a later one, on the same tokens (OLMoE's router saturation).
struct SaturationReport {
  double overlap = 0;        ///< mean |E_t ∩ E'_t| / k
  double chance = 0;         ///< k / E
  double best_agreement = 0; ///< share of tokens with the same best expert; 1 − it is the routing fluctuation
};
/// Throws inspect.probe when the two traces are not over the same tokens.
SaturationReport saturation_report(const RoutingTrace& a, const LayerTrace& layer_a, const RoutingTrace& b, const LayerTrace& layer_b);

}  // namespace switchyard
