# Tables that the build collects from lines of the sources, so that a method or a verb is added by adding its file, without
# static initialisers that static linking would lose.
function(switchyard_table target name folder sources match declaration call)
  set(generated ${CMAKE_BINARY_DIR}/generated/${name}.cpp)
  set(inputs ${CMAKE_SOURCE_DIR}/cmake/write_table.cmake ${CMAKE_SOURCE_DIR}/cmake/${name}.cpp.in)
  add_custom_command(
    OUTPUT ${generated}.stamp BYPRODUCTS ${generated}
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} -DOUT=${generated} -DTEMPLATE=${CMAKE_SOURCE_DIR}/cmake/${name}.cpp.in
            "-DMATCH=${match}" "-DDECLARATION=${declaration}" "-DCALL=${call}" -P ${CMAKE_SOURCE_DIR}/cmake/write_table.cmake
    COMMAND ${CMAKE_COMMAND} -E touch ${generated}.stamp
    DEPENDS ${sources} ${inputs}
    COMMENT "Collecting ${name}"
    VERBATIM)
  target_sources(${target} PRIVATE ${generated} ${generated}.stamp)
  set_source_files_properties(${generated} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()

# SWITCHYARD_REGISTER(name) in a source of the library.
function(switchyard_registrations target)
  switchyard_table(${target} registrations ${CMAKE_SOURCE_DIR}/switchyard "${library_sources}"
    "^SWITCHYARD_REGISTER\\(([A-Za-z0-9_]+)\\)" "void #(Registry&)" "  #(registry)")
endfunction()

# `Verb NAME_verb()` in a source of the program.
function(switchyard_verbs target sources)
  switchyard_table(${target} verbs ${CMAKE_SOURCE_DIR}/program "${sources}"
    "^Verb ([a-z0-9_]+)_verb\\(\\)" "Verb #_verb()" "  list.push_back(#_verb())")
endfunction()
