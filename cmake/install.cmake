# The library with its headers and a package config, and the program. The installed tree links the libtorch that this build
# found; SWITCHYARD_PYTHON or Torch_DIR names another one to a project that uses it.
include(CMakePackageConfigHelpers)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/switchyard)

install(TARGETS switchyard ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/switchyard DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/switchyard-config.cmake.in
  ${CMAKE_BINARY_DIR}/generated/switchyard-config.cmake INSTALL_DESTINATION ${package_folder} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/switchyard-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/switchyard-config.cmake
  ${CMAKE_BINARY_DIR}/generated/switchyard-config-version.cmake ${CMAKE_SOURCE_DIR}/cmake/libraries.cmake
  DESTINATION ${package_folder})

if(SWITCHYARD_PROGRAM)
  set_target_properties(switchyard_program PROPERTIES INSTALL_RPATH "${torch_lib_folder};${cuda_runtime_folder}")
  install(TARGETS switchyard_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/recipes DESTINATION ${CMAKE_INSTALL_DATADIR}/switchyard OPTIONAL)
endif()
