// A number of columns as a constant. Sources include it behind the options of their level, under which it is compiled. Internal to kernels/.
#pragma once

#include <cstdint>
#include <type_traits>

namespace switchyard::kernels::cpu {

/// Calls f with the number of columns, 1 to 8, as a constant.
template <typename F>
[[gnu::always_inline]] static inline void for_columns(int64_t n, const F& f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    case 7: return f(std::integral_constant<int, 7>());
    default: return f(std::integral_constant<int, 8>());
  }
}

}  // namespace switchyard::kernels::cpu
