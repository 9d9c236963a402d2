// The cards of the tools of this room. They have no factory: `switchyard inspect` runs all of them.
#include "switchyard/base/registry.h"

SWITCHYARD_REGISTER(inspect_tools) {
  const auto tool = [&](const char* slug, const char* name, const char* paper, int year, const char* section, const char* line) {
    registry.add_card({.slug = slug, .name = name, .paper = paper, .year = year, .section = section, .room = "inspect",
                       .coupling = "none", .line = line, .recipe = std::string("recipes/methods/") + slug + ".yaml"});
  };
  tool("tool-load", "Load report", "Shazeer et al., Outrageously large neural networks", 2017, "7.1",
       "how evenly experts are used, asked for and computed, with variation, Gini, entropy and dead experts");
  tool("tool-domain-spec", "Domain specialisation", "Muennighoff et al., OLMoE", 2024, "7.3",
       "how much more often than by chance an expert serves a domain, and how far domains lie apart");
  tool("tool-vocab-spec", "Vocabulary specialisation", "Muennighoff et al., OLMoE", 2024, "7.3",
       "whether experts own token ids: the token, the true next one or the predicted one");
  tool("tool-saturation", "Router saturation", "Muennighoff et al., OLMoE", 2024, "7.3",
       "how many of the last checkpoint's experts an earlier one already chooses");
  tool("tool-drop-end", "Drop towards the end", "Xue et al., OpenMoE", 2024, "4.1.1",
       "which positions and which sequences lose their place when experts are full");
  tool("tool-coactivation", "Expert co-activation", "Muennighoff et al., OLMoE", 2024, "7.3",
       "which experts one token uses together, and where its path goes in the next layer");
  tool("tool-mi", "Expert and variable mutual information", "Chen et al., Mod-Squad", 2023, "7.3",
       "how much an expert's number says about domain or task, with a permutation test");
}
