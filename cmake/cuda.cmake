# The CUDA kernels (switchyard/kernels/cuda/*.cu), compiled by nvcc where it is found; they need no header of libtorch. They are
# linked into the library where libtorch is a CUDA build, and compiled all the same where it is not, so that they stay whole.
# Alone: cmake --build build --target switchyard_cuda_kernels
option(SWITCHYARD_CUDA "Compile the CUDA kernels when nvcc is found" ON)
set(SWITCHYARD_CUDA_ARCHITECTURES "80;90" CACHE STRING "Compute capabilities that the CUDA kernels are compiled for")
set(SWITCHYARD_CUDA_LINKED FALSE)
set(cuda_objects "")
if(SWITCHYARD_CUDA)
  get_filename_component(python_folder "${SWITCHYARD_PYTHON}" DIRECTORY)
  file(GLOB wheel_folders ${python_folder}/../lib/python3*/site-packages/nvidia/cu*/bin)
  find_program(SWITCHYARD_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin PATHS /usr/local/cuda/bin ${wheel_folders})
  if(EXISTS "$ENV{CUDACXX}" AND NOT IS_DIRECTORY "$ENV{CUDACXX}")
    set(SWITCHYARD_NVCC $ENV{CUDACXX} CACHE FILEPATH "CUDA's compiler" FORCE)
  endif()
endif()

if(SWITCHYARD_CUDA AND SWITCHYARD_NVCC)
  set(nvcc_flags -std=c++20 -O3 -ccbin ${CMAKE_CXX_COMPILER} -Xcompiler=-fPIC -I${CMAKE_SOURCE_DIR})
  foreach(architecture IN LISTS SWITCHYARD_CUDA_ARCHITECTURES)
    list(APPEND nvcc_flags -gencode=arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  # Devices newer than all of these compile the last one's intermediate code when a kernel is first used.
  list(GET SWITCHYARD_CUDA_ARCHITECTURES -1 newest)
  list(APPEND nvcc_flags -gencode=arch=compute_${newest},code=compute_${newest})
  # A compiler may be there without its headers, or refuse this C++ compiler.
  if(NOT SWITCHYARD_NVCC_WORKS STREQUAL "${SWITCHYARD_NVCC};${nvcc_flags}")
    set(probe ${CMAKE_BINARY_DIR}/generated/cuda_probe)
    file(WRITE ${probe}.cu "#include <cuda_runtime.h>\n#include <cstdint>\n__global__ void probe(int* x) { *x = 1; }\n")
    execute_process(COMMAND ${SWITCHYARD_NVCC} ${nvcc_flags} -c ${probe}.cu -o ${probe}.o
      RESULT_VARIABLE failed OUTPUT_VARIABLE nvcc_says ERROR_VARIABLE nvcc_says)
    if(failed)
      message(STATUS "CUDA kernels: not compiled, since ${SWITCHYARD_NVCC} fails: ${nvcc_says}")
    else()
      set(SWITCHYARD_NVCC_WORKS "${SWITCHYARD_NVCC};${nvcc_flags}" CACHE INTERNAL "The compiler and flags that were tried")
    endif()
  endif()
endif()

if(SWITCHYARD_CUDA AND SWITCHYARD_NVCC AND SWITCHYARD_NVCC_WORKS STREQUAL "${SWITCHYARD_NVCC};${nvcc_flags}")
  if(SWITCHYARD_WERROR)
    list(APPEND nvcc_flags -Werror=all-warnings)
  endif()
  set(nvcc ${SWITCHYARD_NVCC})
  if(ccache_program)
    set(nvcc ${ccache_program} ${SWITCHYARD_NVCC})
  endif()
  file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/switchyard/kernels/cuda/*.cu)
  foreach(source IN LISTS cuda_sources)
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
      COMMAND ${nvcc} ${nvcc_flags} -Xcompiler=-Wall -MD -MT ${object} -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d
      COMMENT "Compiling CUDA kernels ${name}" VERBATIM)
    list(APPEND cuda_objects ${object})
  endforeach()
  add_custom_target(switchyard_cuda_kernels ALL DEPENDS ${cuda_objects})
  if(EXISTS ${torch_root}/lib/libtorch_cuda.so)
    set(SWITCHYARD_CUDA_LINKED TRUE)
  endif()
  message(STATUS "CUDA kernels: ${SWITCHYARD_NVCC}, for ${SWITCHYARD_CUDA_ARCHITECTURES}, linked: ${SWITCHYARD_CUDA_LINKED}")
endif()

# Gives the kernels to the library, and the stream that libtorch queues on to the kernels.
function(switchyard_link_cuda target)
  if(NOT SWITCHYARD_CUDA_LINKED)
    return()
  endif()
  target_sources(${target} PRIVATE ${cuda_objects})
  set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  execute_process(COMMAND ${SWITCHYARD_NVCC} --dryrun -x cu -c /dev/null OUTPUT_VARIABLE nvcc_says ERROR_VARIABLE nvcc_says)
  string(REGEX MATCH "TOP=([^\n]+)" found "${nvcc_says}")
  find_path(cuda_include cuda_runtime_api.h HINTS ${CMAKE_MATCH_1}/include ${CMAKE_MATCH_1}/targets/x86_64-linux/include REQUIRED NO_CACHE)
  set_source_files_properties(${CMAKE_SOURCE_DIR}/switchyard/kernels/cuda/backend.cpp PROPERTIES
    COMPILE_DEFINITIONS SWITCHYARD_CUDA INCLUDE_DIRECTORIES ${cuda_include} SKIP_PRECOMPILE_HEADERS ON)
endfunction()
