# Every SWITCHYARD_REGISTER(name) in a source becomes a call in one generated table, so that
# registration does not depend on static initialisers and survives static linking.
function(switchyard_registrations target)
  set(generated ${CMAKE_BINARY_DIR}/generated/registrations.cpp)
  add_custom_command(
    OUTPUT ${generated}.stamp BYPRODUCTS ${generated}
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${CMAKE_SOURCE_DIR}/switchyard -DOUT=${generated}
            -P ${CMAKE_SOURCE_DIR}/cmake/write_registrations.cmake
    COMMAND ${CMAKE_COMMAND} -E touch ${generated}.stamp
    DEPENDS ${library_sources} ${CMAKE_SOURCE_DIR}/cmake/write_registrations.cmake
    COMMENT "Collecting registrations")
  target_sources(${target} PRIVATE ${generated} ${generated}.stamp)
  set_source_files_properties(${generated} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()
