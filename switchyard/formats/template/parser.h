// Jinja's grammar: a template's text to its tree.
#pragma once

#include <memory>
#include <string_view>

#include "switchyard/formats/template/syntax.h"

namespace switchyard::jinja {

/// Throws Fault template.syntax, template.name (an unknown filter or test), template.size, template.depth, template.encoding.
std::shared_ptr<const Syntax> parse(std::string_view source);

/// Resolves every variable of a parsed template to its place (scopes.cpp).
void resolve_scopes(Syntax& syntax);

/// Are these names of the language (filters.h, tests.h)?
bool filter_exists(std::string_view name);
bool test_exists(std::string_view name);

}  // namespace switchyard::jinja
