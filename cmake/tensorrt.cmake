# The headers of TensorRT 10 or 11: a given folder, or the system's. Its wheels have none. They include CUDA's, whose
# runtime is linked statically. A build without either goes on without the backend.
find_path(X2CT_TENSORRT_INCLUDE NvInfer.h HINTS ENV X2CT_TENSORRT_INCLUDE PATH_SUFFIXES x86_64-linux-gnu
    DOC "The folder of NvInfer.h")
if(NOT X2CT_TENSORRT_INCLUDE)
    message(STATUS "No TensorRT backend: its headers were not found. Name them: -DX2CT_TENSORRT_INCLUDE=FOLDER")
    return()
endif()
foreach(header NvInfer.h NvOnnxParser.h NvInferVersion.h)
    if(NOT EXISTS "${X2CT_TENSORRT_INCLUDE}/${header}")
        message(FATAL_ERROR "X2CT_TENSORRT_INCLUDE: found no ${header} in ${X2CT_TENSORRT_INCLUDE}")
    endif()
endforeach()
find_package(CUDAToolkit QUIET)
if(NOT TARGET CUDA::cudart_static)
    message(STATUS "No TensorRT backend: its headers need CUDA's, which were not found. Name them: -DCUDAToolkit_ROOT=FOLDER")
    return()
endif()

# "#define NV_TENSORRT_MAJOR 10", or by way of TRT_MAJOR_ENTERPRISE.
foreach(part MAJOR MINOR)
    file(STRINGS "${X2CT_TENSORRT_INCLUDE}/NvInferVersion.h" line
         REGEX "^#define (NV_TENSORRT_${part}|TRT_${part}_ENTERPRISE) [0-9]+" LIMIT_COUNT 1)
    string(REGEX MATCH " ([0-9]+)" _ "${line}")
    set(tensorrt_${part} "${CMAKE_MATCH_1}")
endforeach()
if(NOT tensorrt_MAJOR MATCHES "^1[01]$")
    message(FATAL_ERROR "X2CT_TENSORRT_INCLUDE: found TensorRT ${tensorrt_MAJOR}, expected 10 or 11")
endif()
message(STATUS "TensorRT backend: for ${tensorrt_MAJOR}.x, headers of ${tensorrt_MAJOR}.${tensorrt_MINOR} in ${X2CT_TENSORRT_INCLUDE}")
set_property(SOURCE csrc/backends/backends.cpp APPEND PROPERTY COMPILE_DEFINITIONS X2CT_TENSORRT_MAJOR="${tensorrt_MAJOR}")
file(GLOB tensorrt_sources CONFIGURE_DEPENDS csrc/backends/tensorrt/*.cpp)
add_library(x2ct_tensorrt MODULE ${tensorrt_sources})
target_include_directories(x2ct_tensorrt PRIVATE csrc csrc/include)
target_include_directories(x2ct_tensorrt SYSTEM PRIVATE "${X2CT_TENSORRT_INCLUDE}")
target_link_libraries(x2ct_tensorrt PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
# CUDA's symbols stay inside: another library of the process may have its own runtime.
target_link_options(x2ct_tensorrt PRIVATE -Wl,--exclude-libs,ALL)
set_target_properties(x2ct_tensorrt PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${package_dir}/lib")
