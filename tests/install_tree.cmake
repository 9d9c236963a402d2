# Installs into an empty folder, builds examples/ against it as a project of its own, and runs what came out.
# cmake -DBUILD=... -DSOURCE=... -P tests/install_tree.cmake
set(work ${BUILD}/install-tree-test)
file(REMOVE_RECURSE ${work}/prefix)
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE failed OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(failed)
    message(FATAL_ERROR "${ARGV}\n${out}")
  endif()
  set(out "${out}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/prefix)
run(${work}/prefix/bin/switchyard --version)
# The compiler cache and the linker of the main build serve here too; nothing else is handed over.
run(${CMAKE_COMMAND} -G Ninja -S ${SOURCE}/examples -B ${work}/build -DCMAKE_PREFIX_PATH=${work}/prefix
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} "-DCMAKE_CXX_FLAGS=${FLAGS}")
run(${CMAKE_COMMAND} --build ${work}/build)
run(${work}/build/own_router)
if(NOT out MATCHES "10 rows of 16 values; 20 pairs")
  message(FATAL_ERROR "the example says: ${out}")
endif()
