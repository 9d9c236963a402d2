// Linked into what is built with the address and undefined-behaviour sanitizers; libtorch itself is not instrumented.
extern "C" {

// Containers that libtorch fills carry no annotations; its allocations of more than a limit must fail, not end the process.
const char* __asan_default_options() {
  return "detect_container_overflow=0:allocator_may_return_null=1:detect_leaks=1:abort_on_error=0:strict_string_checks=1";
}

const char* __ubsan_default_options() { return "print_stacktrace=1"; }

// Allocated once and kept until the process ends.
const char* __lsan_default_suppressions() {
  return "leak:libtorch\n"
         "leak:libc10\n"
         "leak:libgomp\n"
         "leak:libmkl\n";
}

}  // extern "C"
