# Every file program/verb_*.cpp defines `Verb NAME_verb()`; the build collects these factories into one table, so that
# a verb is added by adding its file.
function(switchyard_verbs target sources)
  set(generated ${CMAKE_BINARY_DIR}/generated/verbs.cpp)
  add_custom_command(
    OUTPUT ${generated}.stamp BYPRODUCTS ${generated}
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${CMAKE_SOURCE_DIR}/program -DOUT=${generated}
            -P ${CMAKE_SOURCE_DIR}/cmake/write_verbs.cmake
    COMMAND ${CMAKE_COMMAND} -E touch ${generated}.stamp
    DEPENDS ${sources} ${CMAKE_SOURCE_DIR}/cmake/write_verbs.cmake
    COMMENT "Collecting verbs")
  target_sources(${target} PRIVATE ${generated} ${generated}.stamp)
endfunction()
