// Stands before libtorch's header of that name. Every operation's header includes it and uses nothing of it, and with it come
// the types of libtorch's interpreter, which cost each source a second. A source that needs the real one defines
// SWITCHYARD_WHOLE_ATEN first.
#pragma once
#ifdef SWITCHYARD_WHOLE_ATEN
#include_next <ATen/Context.h>
#endif
