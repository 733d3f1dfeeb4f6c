# The headers of ONNX Runtime: a given folder, what cmake/onnxruntime_headers.sh fetched, or the system's package. Its
# wheels have none. A build without them goes on without the backend.
find_path(X2CT_ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h
    HINTS ENV X2CT_ONNXRUNTIME_INCLUDE "${CMAKE_SOURCE_DIR}/build/onnxruntime-headers"
    PATH_SUFFIXES onnxruntime onnxruntime/core/session
    DOC "The folder of onnxruntime_cxx_api.h")
if(NOT X2CT_ONNXRUNTIME_INCLUDE)
    message(STATUS "No ONNX Runtime backend: its headers were not found. Install them (Debian: libonnxruntime-dev), run "
                   "cmake/onnxruntime_headers.sh build/onnxruntime-headers, or name them: -DX2CT_ONNXRUNTIME_INCLUDE=FOLDER")
    return()
endif()
if(NOT EXISTS "${X2CT_ONNXRUNTIME_INCLUDE}/onnxruntime_cxx_api.h")
    message(FATAL_ERROR "X2CT_ONNXRUNTIME_INCLUDE: found no onnxruntime_cxx_api.h in ${X2CT_ONNXRUNTIME_INCLUDE}")
endif()

file(STRINGS "${X2CT_ONNXRUNTIME_INCLUDE}/onnxruntime_c_api.h" api_line REGEX "^#define ORT_API_VERSION [0-9]+")
string(REGEX MATCH "[0-9]+$" api_version "${api_line}")
message(STATUS "ONNX Runtime backend: for 1.${api_version} and newer, headers in ${X2CT_ONNXRUNTIME_INCLUDE}")
set_property(SOURCE csrc/backends/backends.cpp APPEND PROPERTY COMPILE_DEFINITIONS X2CT_ONNXRUNTIME_VERSION="1.${api_version}")
file(GLOB onnxruntime_sources CONFIGURE_DEPENDS csrc/backends/onnxruntime/*.cpp)
add_library(x2ct_onnxruntime MODULE ${onnxruntime_sources})
target_include_directories(x2ct_onnxruntime PRIVATE csrc csrc/include)
target_include_directories(x2ct_onnxruntime SYSTEM PRIVATE "${X2CT_ONNXRUNTIME_INCLUDE}")
target_compile_definitions(x2ct_onnxruntime PRIVATE ORT_API_MANUAL_INIT)
target_link_libraries(x2ct_onnxruntime PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(x2ct_onnxruntime PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${package_dir}/lib")
