// What this machine reaches on a large dense product, so that a training's rate can be read as a share of it.
#pragma once

#include "switchyard/train/train_options.h"

namespace switchyard {

/// Floating-point operations a second of the best of a few products in `precision`; measured once a process, in about
/// a tenth of a second.
double measured_peak(Precision precision);

}  // namespace switchyard
