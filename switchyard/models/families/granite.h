// What the Granite families have in common.
#pragma once

#include <string>
#include <vector>

#include "switchyard/models/families/table_family.h"

namespace switchyard {

std::vector<NameRule> granite_names();
std::vector<HubKey> granite_keys();
/// The multiplier of logits, and a shared network beside every mixture.
void arrange_granite_shared(const HubReader& config, const std::string& type, Draft& draft);
void describe_granite_shared(const Node& composition, const std::string& type, Node& config);

}  // namespace switchyard
