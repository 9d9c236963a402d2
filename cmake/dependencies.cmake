# What the library stands on: libtorch from a Python wheel, and packages of the distribution.
# The wheel is looked for in the project's .venv unless CMAKE_PREFIX_PATH or SWITCHYARD_PYTHON says otherwise.
set(SWITCHYARD_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python whose torch package is linked")
if(NOT Torch_DIR AND EXISTS ${SWITCHYARD_PYTHON})
  execute_process(
    COMMAND ${SWITCHYARD_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE torch_folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(torch_folder)
    set(Torch_DIR ${torch_folder}/share/cmake/Torch CACHE PATH "libtorch's package config" FORCE)
  endif()
endif()
find_package(Torch REQUIRED)
find_package(Threads REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(fmt REQUIRED)
find_package(ZLIB REQUIRED)

get_filename_component(torch_lib_folder ${TORCH_LIBRARY} DIRECTORY)
file(GLOB torch_gomp ${torch_lib_folder}/libgomp*.so*)
if(NOT torch_gomp)
  set(torch_gomp gomp)
endif()

# Public: what our headers name. OpenMP is compiled in, or at::parallel_for runs on one thread;
# it links the libgomp that torch ships, so that a process has only one.
# fmt is header-only here: libtorch may carry headers of another version than the system's library.
add_library(switchyard_dependencies INTERFACE)
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_include_directories(switchyard_dependencies SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_compile_options(switchyard_dependencies INTERFACE ${torch_flags} -fopenmp)
target_link_libraries(switchyard_dependencies INTERFACE
  ${TORCH_LIBRARIES} ${torch_gomp} fmt::fmt-header-only Threads::Threads)

# Private: what only sources use.
find_library(sentencepiece_library sentencepiece REQUIRED)
find_library(sentencepiece_train_library sentencepiece_train REQUIRED)
add_library(switchyard_private_dependencies INTERFACE)
target_link_libraries(switchyard_private_dependencies INTERFACE
  yaml-cpp nlohmann_json::nlohmann_json CLI11::CLI11 ZLIB::ZLIB
  ${sentencepiece_train_library} ${sentencepiece_library})

find_program(ccache_program ccache)
if(ccache_program AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${ccache_program})
endif()
find_program(mold_program mold)
if(mold_program AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  add_link_options(-fuse-ld=mold)
endif()

function(switchyard_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
  if(SWITCHYARD_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
