# What `cmake --install` puts where, in the three parts that packages are made of.
include(CMakePackageConfigHelpers)

set(SLG_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/softlogit)
# The installed files find each other wherever the prefix is moved to.
file(RELATIVE_PATH SLG_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" SLG_PC_TO_PREFIX ${SLG_PC_TO_PREFIX})
configure_file(cmake/softlogit.pc.in cmake/softlogit.pc @ONLY)
configure_package_config_file(cmake/softlogitConfig.cmake.in cmake/softlogitConfig.cmake
    INSTALL_DESTINATION ${SLG_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cmake/softlogitConfigVersion.cmake
    COMPATIBILITY SameMajorVersion)

install(TARGETS softlogit EXPORT softlogitTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libsoftlogit0
    NAMELINK_COMPONENT libsoftlogit-dev)
install(EXPORT softlogitTargets NAMESPACE softlogit:: DESTINATION ${SLG_CMAKE_DIR}
    COMPONENT libsoftlogit-dev)
install(FILES ${PROJECT_BINARY_DIR}/cmake/softlogitConfig.cmake
    ${PROJECT_BINARY_DIR}/cmake/softlogitConfigVersion.cmake
    DESTINATION ${SLG_CMAKE_DIR} COMPONENT libsoftlogit-dev)
install(FILES ${PROJECT_BINARY_DIR}/cmake/softlogit.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT libsoftlogit-dev)
install(DIRECTORY include/softlogit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT libsoftlogit-dev FILES_MATCHING PATTERN "*.h")
if(SOFTLOGIT_BUILD_EXAMPLES)
    install(TARGETS softlogit_info RUNTIME COMPONENT softlogit-tools)
    configure_file(docs/softlogit-info.1.in cmake/softlogit-info.1 @ONLY)
    execute_process(COMMAND gzip -9nc ${PROJECT_BINARY_DIR}/cmake/softlogit-info.1
        OUTPUT_FILE ${PROJECT_BINARY_DIR}/cmake/softlogit-info.1.gz COMMAND_ERROR_IS_FATAL ANY)
    install(FILES ${PROJECT_BINARY_DIR}/cmake/softlogit-info.1.gz
        DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT softlogit-tools)
endif()

# Packages are for /usr: only with that prefix do they get Debian's library folder.
if(PROJECT_IS_TOP_LEVEL AND CMAKE_INSTALL_PREFIX STREQUAL "/usr")
    include(cmake/package.cmake)
endif()
