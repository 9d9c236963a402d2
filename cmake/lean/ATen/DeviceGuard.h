// Stands before libtorch's header of that name, as Context.h beside it does.
#pragma once
#ifdef SWITCHYARD_WHOLE_ATEN
#include_next <ATen/DeviceGuard.h>
#endif
