# What the library stands on: libtorch from a Python wheel, and packages of the distribution.
# Included by our own build and by the installed package alike; each sets SWITCHYARD_PYTHON's default first. Torch_DIR or
# CMAKE_PREFIX_PATH may name another libtorch.
if(NOT Torch_DIR AND EXISTS ${SWITCHYARD_PYTHON})
  execute_process(
    COMMAND ${SWITCHYARD_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE torch_folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(torch_folder)
    set(Torch_DIR ${torch_folder}/share/cmake/Torch CACHE PATH "libtorch's package config" FORCE)
  endif()
endif()

# A CUDA build's package config asks for the whole CUDA toolkit of its own version, which linking does not need; so its
# libraries are named here.
get_filename_component(torch_root "${Torch_DIR}/../../.." ABSOLUTE)
if(SWITCHYARD_PLAIN_TORCH OR EXISTS ${torch_root}/lib/libtorch_cuda.so)
  set(TORCH_LIBRARY ${torch_root}/lib/libtorch.so)
  set(TORCH_LIBRARIES ${TORCH_LIBRARY} ${torch_root}/lib/libtorch_cpu.so ${torch_root}/lib/libc10.so)
  set(TORCH_INCLUDE_DIRS ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
  set(TORCH_CXX_FLAGS "")
  foreach(library libtorch_cuda libc10_cuda)
    if(EXISTS ${torch_root}/lib/${library}.so)
      list(APPEND TORCH_LIBRARIES "-Wl,--no-as-needed,${torch_root}/lib/${library}.so,--as-needed")
    endif()
  endforeach()
  # Our CUDA kernels call the runtime library that libtorch calls.
  file(GLOB cuda_runtime ${torch_root}/../nvidia/cu*/lib/libcudart.so* ${torch_root}/../nvidia/cuda_runtime/lib/libcudart.so*
    ${torch_root}/lib/libcudart*.so*)
  if(EXISTS ${torch_root}/lib/libtorch_cuda.so AND NOT cuda_runtime)
    find_library(cuda_runtime cudart PATHS /usr/local/cuda/lib64 NO_CACHE)
  endif()
  if(cuda_runtime)
    list(GET cuda_runtime 0 cuda_runtime)
    list(APPEND TORCH_LIBRARIES ${cuda_runtime})
    get_filename_component(cuda_runtime_folder ${cuda_runtime} DIRECTORY)
  endif()
  # Nothing of ours names a symbol of theirs, so they are kept by force. The CUDA libraries lie in packages of their own,
  # which libtorch finds beside itself at run time.
  list(APPEND TORCH_LIBRARIES -Wl,--allow-shlib-undefined)
  message(STATUS "libtorch in ${torch_root}, linked without its package config")
else()
  find_package(Torch REQUIRED)
endif()
find_package(Threads REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(fmt REQUIRED)
find_package(ZLIB REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc)

get_filename_component(torch_lib_folder ${TORCH_LIBRARY} DIRECTORY)
file(GLOB torch_gomp ${torch_lib_folder}/libgomp*.so*)
if(NOT torch_gomp)
  set(torch_gomp gomp)
endif()

# Public: what our headers name. OpenMP is compiled in, or at::parallel_for runs on one thread;
# it links the libgomp that torch ships, so that a process has only one.
# fmt comes as headers alone (libtorch may carry them in another version than the system's library); what they leave to a
# library is compiled once, in base/fmt_library.cpp: as header-only code it would be compiled in every source again.
add_library(switchyard_dependencies INTERFACE)
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_include_directories(switchyard_dependencies SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_compile_options(switchyard_dependencies INTERFACE ${torch_flags} -fopenmp)
target_link_libraries(switchyard_dependencies INTERFACE
  ${TORCH_LIBRARIES} ${torch_gomp} Threads::Threads)

# Private: what only sources use.
find_library(sentencepiece_library sentencepiece REQUIRED)
find_library(sentencepiece_train_library sentencepiece_train REQUIRED)
find_library(pcre2_library pcre2-8 REQUIRED)
add_library(switchyard_private_dependencies INTERFACE)
target_link_libraries(switchyard_private_dependencies INTERFACE
  yaml-cpp nlohmann_json::nlohmann_json CLI11::CLI11 ZLIB::ZLIB ICU::uc
  ${sentencepiece_train_library} ${sentencepiece_library} ${pcre2_library})
