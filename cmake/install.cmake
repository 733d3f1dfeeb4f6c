# cmake --install: include/x2ct/, lib/libx2ct.so and libx2ct_core.a, lib/x2ct/ with the backends, and what
# find_package(x2ct) reads. The targets are x2ct::x2ct (C interface) and x2ct::core (C++, static).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/x2ct)
install(DIRECTORY csrc/include/x2ct DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS x2ct x2ct_core EXPORT x2ctTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
foreach(library x2ct_openvino x2ct_onnxruntime x2ct_tensorrt x2ct_torch x2ct_cuda)
    if(TARGET ${library})
        install(TARGETS ${library} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/x2ct)
    endif()
endforeach()
install(EXPORT x2ctTargets NAMESPACE x2ct:: DESTINATION ${config_dir})
configure_package_config_file(cmake/x2ctConfig.cmake.in ${CMAKE_BINARY_DIR}/x2ctConfig.cmake
                              INSTALL_DESTINATION ${config_dir} PATH_VARS CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/x2ctConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/x2ctConfig.cmake ${CMAKE_BINARY_DIR}/x2ctConfigVersion.cmake DESTINATION ${config_dir})
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/x2ct)
