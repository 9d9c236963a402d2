// The grids of the IQ formats: points in 8 (or 4) dimensions, each as the numbers of its levels, lowest dimension in the lowest
// bits. They are part of the formats: chosen once by their makers to cover the weights of real models well.
#pragma once

#include <cstdint>

namespace switchyard::codecs {

extern const uint16_t kIq2xxs[256], kIq2xs[512], kIq2s[1024];  ///< 8 dimensions, 2 bits each
extern const uint16_t kIq3xxs[256], kIq3s[512];                ///< 4 dimensions, 3 bits each
extern const uint16_t kIq1s[2048];                             ///< 8 dimensions, 2 bits each

}  // namespace switchyard::codecs
