# The report's page: template, style, script and the charting library become string literals in the
# library, so that the program works from a build tree and from an install tree alike.
#
# D3 5 (BSD-3-Clause, 250 kB): the distribution packages it whole, and it draws lines and heat maps alike.
find_file(SWITCHYARD_D3 d3.min.js
  PATHS /usr/share/nodejs/d3/dist /usr/share/javascript/d3/dist /usr/local/share/nodejs/d3/dist
  NO_DEFAULT_PATH DOC "d3.min.js, version 5 or later, for the routing report")
if(NOT SWITCHYARD_D3)
  message(FATAL_ERROR "The routing report needs D3 (d3.min.js, version 5 or later).\n"
    "Install it with: apt-get install node-d3\nor name the file: cmake -DSWITCHYARD_D3=/path/to/d3.min.js")
endif()

function(switchyard_page target)
  set(folder ${CMAKE_SOURCE_DIR}/switchyard/inspect/page)
  set(files ${folder}/report.html ${folder}/report.css ${folder}/charts.js ${folder}/report.js)
  set(generated ${CMAKE_BINARY_DIR}/generated/page_sources.cpp)
  add_custom_command(
    OUTPUT ${generated}
    COMMAND ${CMAKE_COMMAND} "-DFILES=${files}" -DD3=${SWITCHYARD_D3} -DOUT=${generated}
            -P ${CMAKE_SOURCE_DIR}/cmake/write_page.cmake
    DEPENDS ${files} ${SWITCHYARD_D3} ${CMAKE_SOURCE_DIR}/cmake/write_page.cmake
    COMMENT "Embedding the report's page" VERBATIM)
  target_sources(${target} PRIVATE ${generated})
  set_source_files_properties(${generated} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()
