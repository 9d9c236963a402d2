// How `train` and `resume` end: what came out and how to go on.
#pragma once

#include "switchyard/train/run.h"

namespace switchyard::program {

/// Says where the run is and what to do next; 0, or 130 when Ctrl-C stopped it.
int report_run(const RunResult& result);

}  // namespace switchyard::program
