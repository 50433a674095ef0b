# Debian packages: libsoftlogit0, libsoftlogit-dev, softlogit-tools.
#
#     cmake -S . -B build -G Ninja -DCMAKE_INSTALL_PREFIX=/usr && cmake --build build
#     (cd build && cpack)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME softlogit)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # each component has its own
set(CPACK_PACKAGE_VENDOR "The libsoftlogit authors")
set(CPACK_PACKAGE_CONTACT "The libsoftlogit authors <maintainers@softlogit.example.org>")
set(CPACK_COMPONENTS_ALL libsoftlogit0 libsoftlogit-dev)
if(SOFTLOGIT_BUILD_EXAMPLES)
    list(APPEND CPACK_COMPONENTS_ALL softlogit-tools)
endif()
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_DEBUGINFO_PACKAGE ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/src)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(debian ${PROJECT_BINARY_DIR}/debian)
set(summary_libsoftlogit0 "${PROJECT_DESCRIPTION} (library)")
set(summary_libsoftlogit-dev "${PROJECT_DESCRIPTION} (development files)")
set(summary_softlogit-tools "${PROJECT_DESCRIPTION} (tools)")
set(section_libsoftlogit0 libs)
set(section_libsoftlogit-dev libdevel)
set(section_softlogit-tools utils)
set(text_libsoftlogit0 "This package holds the shared library.")
set(text_libsoftlogit-dev "This package holds the headers and what CMake and pkg-config need.")
set(text_softlogit-tools "This package holds softlogit-info, which shows what the library finds.")
string(CONCAT description "Softmax, log-sum-exp, losses over logits with their gradients,\n"
    "dense or fused with the output layer, and update rules for weights.\n"
    "Kernels for AVX2 and AVX-512 are chosen at run time.\n.\n")

# What every package holds beside its files. shlibdeps does not see our own packages.
file(READ LICENSE license)
string(REGEX REPLACE ".*(Copyright) \\(c\\) ([^\n]+).*" "\\1: \\2" copyright "${license}")
string(REGEX REPLACE "^.*authors\n\n" "" license "${license}")
string(REGEX REPLACE "\n\n" "\n.\n" license "${license}")
string(REGEX REPLACE "\n$" "" license "${license}")
string(REPLACE "\n" "\n " license "${license}")
file(WRITE ${debian}/copyright
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
    "\nFiles: *\n${copyright}\n"
    "License: BSD-3-clause\n ${license}\n")
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE ${debian}/changelog
    "softlogit (${PROJECT_VERSION}) unstable; urgency=low\n\n  * Release ${PROJECT_VERSION}.\n\n"
    " -- ${CPACK_PACKAGE_CONTACT}  ${date}\n")
execute_process(COMMAND gzip -9nc ${debian}/changelog OUTPUT_FILE ${debian}/changelog.gz
    COMMAND_ERROR_IS_FATAL ANY)
file(WRITE ${debian}/triggers "activate-noawait ldconfig\n")
file(WRITE ${debian}/shlibs
    "libsoftlogit 0 libsoftlogit0 (>= ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})\n")

foreach(package IN LISTS CPACK_COMPONENTS_ALL)
    string(TOUPPER ${package} PACKAGE)
    set(CPACK_DEBIAN_${PACKAGE}_PACKAGE_NAME ${package})
    set(CPACK_DEBIAN_${PACKAGE}_PACKAGE_SECTION ${section_${package}})
    set(CPACK_COMPONENT_${PACKAGE}_DESCRIPTION
        "${summary_${package}}\n${description}${text_${package}}")
    install(FILES ${debian}/copyright ${debian}/changelog.gz
        DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} COMPONENT ${package})
endforeach()
# pkg-config reads the .pc files in Requires.private even for shared linking.
set(CPACK_DEBIAN_LIBSOFTLOGIT-DEV_PACKAGE_DEPENDS
    "libsoftlogit0 (= ${PROJECT_VERSION}), libopenblas-dev, libcpuinfo-dev")
set(CPACK_DEBIAN_SOFTLOGIT-TOOLS_PACKAGE_DEPENDS "libsoftlogit0 (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_LIBSOFTLOGIT0_PACKAGE_CONTROL_EXTRA ${debian}/triggers ${debian}/shlibs)

# CPack writes maintainer scripts that call ldconfig, whatever triggers says.
file(WRITE ${debian}/libsoftlogit0 "libsoftlogit0: maintscript-calls-ldconfig\n")
install(FILES ${debian}/libsoftlogit0 DESTINATION ${CMAKE_INSTALL_DATADIR}/lintian/overrides
    COMPONENT libsoftlogit0)

include(CPack)
