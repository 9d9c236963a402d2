// at::cat takes the list type that the real Context.h would have brought.
#pragma once
#include <ATen/core/IListRef.h>
#include_next <ATen/ops/cat.h>
